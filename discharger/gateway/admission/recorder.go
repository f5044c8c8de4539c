package admission

import (
	"net/http"
	"time"
)

// Recorder closes the connection of a client that neither sends nor reads, and records
// status and size of the answer.
type Recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	pacer  pacer
}

// NewRecorder returns a recorder of an exchange, and replaces the body of its request.
func NewRecorder(w http.ResponseWriter, r *http.Request) *Recorder {
	out := &Recorder{ResponseWriter: w}
	out.pacer.begin(w, r)
	return out
}

// End moves the deadline for the rest of the answer, and returns its status and size.
func (r *Recorder) End() (status int, bytes int64) {
	r.pacer.writing()
	return r.status, r.bytes
}

// Limit bounds the time for the whole body of the request; 0: no bound.
func (r *Recorder) Limit(d time.Duration) { r.pacer.limit(d) }

// WriteHeader implements [http.ResponseWriter].
func (r *Recorder) WriteHeader(status int) {
	if r.status == 0 || r.status < http.StatusOK {
		r.status = status
	}
	r.pacer.writing()
	r.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (r *Recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.pacer.writing()
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap returns the recorded writer, for [http.ResponseController].
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
