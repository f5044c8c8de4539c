package admission

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// A body or an answer may take any time while bytes move. The connection of a client
// that sends less than MinProgress, or reads nothing, is closed: it holds memory and a
// connection to the homeserver.
const (
	ReadTimeout  = 30 * time.Second // for MinProgress bytes of a body
	MinProgress  = 1 << 10          // bytes
	WriteTimeout = time.Minute      // for one piece of an answer, of up to 32 KiB
	paceEvery    = time.Second      // between two moves of a deadline
)

// ErrSlow is returned by the body of a request whose client sends too slowly.
var ErrSlow = errors.New("client sends too slowly")

// Recorder closes the connection of a client that neither sends nor reads, and records
// status and size of the answer. Its deadlines are real time, independent of the
// gateway's clock.
type Recorder struct {
	http.ResponseWriter
	status  int
	bytes   int64
	conn    *http.ResponseController
	written time.Time // when the deadline for writing was moved last
}

// NewRecorder returns a recorder of an exchange, and replaces the body of its request.
func NewRecorder(w http.ResponseWriter, r *http.Request) *Recorder {
	out := &Recorder{ResponseWriter: w, conn: http.NewResponseController(w)}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &pacedBody{ReadCloser: r.Body, conn: out.conn}
	}
	return out
}

// End moves the deadline for the rest of the answer, and returns its status and size.
func (r *Recorder) End() (status int, bytes int64) {
	r.pace()
	return r.status, r.bytes
}

// LimitBody bounds the time for the whole body of a request with a [Recorder], for
// bodies that are read before the request is processed.
func LimitBody(r *http.Request, d time.Duration) {
	if b, ok := r.Body.(*pacedBody); ok {
		b.end = time.Now().Add(d)
	}
}

// WriteHeader implements [http.ResponseWriter].
func (r *Recorder) WriteHeader(status int) {
	if r.status == 0 || r.status < http.StatusOK {
		r.status = status
	}
	r.pace()
	r.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (r *Recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.pace()
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap returns the recorded writer, for [http.ResponseController].
func (r *Recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// pace moves the deadline before a write. Connections without deadlines have none.
func (r *Recorder) pace() {
	if now := time.Now(); now.Sub(r.written) >= paceEvery {
		r.written = now
		_ = r.conn.SetWriteDeadline(now.Add(WriteTimeout))
	}
}

// pacedBody is a body with a minimum rate.
type pacedBody struct {
	io.ReadCloser
	conn  *http.ResponseController
	end   time.Time // deadline of the whole body; zero: none
	moved time.Time // when the deadline of reading was moved last
	since int       // bytes since then
}

// Read implements [io.Reader]. It returns [ErrSlow] if too few bytes arrive in time.
func (b *pacedBody) Read(p []byte) (int, error) {
	now := time.Now()
	if b.moved.IsZero() || b.since >= MinProgress && now.Sub(b.moved) >= paceEvery {
		deadline := now.Add(ReadTimeout)
		if !b.end.IsZero() && b.end.Before(deadline) {
			deadline = b.end
		}
		b.moved, b.since = now, 0
		_ = b.conn.SetReadDeadline(deadline)
	}
	n, err := b.ReadCloser.Read(p)
	b.since += n
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrSlow
	}
	return n, err
}
