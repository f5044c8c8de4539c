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

// pacer moves the deadlines of a connection while a request is answered. They are
// real time, independent of the gateway's clock.
type pacer struct {
	conn    *http.ResponseController
	end     time.Time // of reading the body; zero: there is none
	written time.Time // when the deadline for writing was moved last
}

// begin bounds how long the client of a request may neither send nor read.
func (p *pacer) begin(w http.ResponseWriter, req *http.Request) {
	p.conn = http.NewResponseController(w)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &pacedBody{ReadCloser: req.Body, pacer: p}
	}
}

// writing moves the deadline before a write. Connections without deadlines have none.
func (p *pacer) writing() {
	if p.conn == nil {
		return
	}
	if now := time.Now(); now.Sub(p.written) >= paceEvery {
		p.written = now
		_ = p.conn.SetWriteDeadline(now.Add(WriteTimeout))
	}
}

// limit bounds the time for the whole body, for bodies that are read before the
// request is processed; 0: no bound.
func (p *pacer) limit(d time.Duration) {
	p.end = time.Time{}
	if d > 0 {
		p.end = time.Now().Add(d)
	}
}

// pacedBody is a body with a minimum rate.
type pacedBody struct {
	io.ReadCloser
	pacer *pacer
	moved time.Time // when the deadline was moved last
	since int       // bytes since then
}

// Read implements [io.Reader]. It returns [ErrSlow] if too few bytes arrive in time.
func (b *pacedBody) Read(p []byte) (int, error) {
	now := time.Now()
	if b.moved.IsZero() || b.since >= MinProgress && now.Sub(b.moved) >= paceEvery {
		deadline := now.Add(ReadTimeout)
		if end := b.pacer.end; !end.IsZero() && end.Before(deadline) {
			deadline = end
		}
		b.moved, b.since = now, 0
		_ = b.pacer.conn.SetReadDeadline(deadline)
	}
	n, err := b.ReadCloser.Read(p)
	b.since += n
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrSlow
	}
	return n, err
}
