package admission

import (
	"net/http"
	"time"
)

// Recorder paces an exchange, and counts its answer.
type Recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	pacer  pacer
}

// NewRecorder begins an exchange: from now on its client has to send and to read.
func NewRecorder(w http.ResponseWriter, r *http.Request) *Recorder {
	out := &Recorder{ResponseWriter: w}
	out.pacer.begin(w, r)
	return out
}

// End moves the deadline for the rest of the answer, and returns its status and the
// number of bytes that were written.
func (r *Recorder) End() (status int, bytes int64) {
	r.pacer.writing()
	return r.status, r.bytes
}

// Limit bounds the time in which the whole body of the request has to arrive; 0 is
// no bound.
func (r *Recorder) Limit(d time.Duration) { r.pacer.limit(d) }

// WriteHeader notes the status.
func (r *Recorder) WriteHeader(status int) {
	if r.status == 0 || r.status < http.StatusOK {
		r.status = status
	}
	r.pacer.writing()
	r.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (r *Recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.pacer.writing()
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets the proxy flush and hijack.
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
