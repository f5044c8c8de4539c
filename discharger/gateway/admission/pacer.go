package admission

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// A client may take as long as it likes for a body or an answer, as long as bytes
// move. One that sends nothing, or next to nothing, or reads nothing, is cut off:
// it keeps memory and a connection to the homeserver.
const (
	ReadTimeout  = 30 * time.Second // for minProgress bytes of a body
	MinProgress  = 1 << 10
	WriteTimeout = time.Minute // for one piece of an answer, of up to 32 KiB
	paceEvery    = time.Second // a deadline is moved this often
)

var ErrSlow = errors.New("client sends too slowly")

// pacer moves the deadlines of a connection while a request is answered. They are
// real time, whatever the gateway's clock shows.
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

// writing is called before something is written. Where deadlines are not possible,
// there are none.
func (p *pacer) writing() {
	if p.conn == nil {
		return
	}
	if now := time.Now(); now.Sub(p.written) >= paceEvery {
		p.written = now
		_ = p.conn.SetWriteDeadline(now.Add(WriteTimeout))
	}
}

// limit bounds the time in which the whole body has to arrive, for bodies that are
// read before anything else is done; 0 is no bound.
func (p *pacer) limit(d time.Duration) {
	p.end = time.Time{}
	if d > 0 {
		p.end = time.Now().Add(d)
	}
}

// pacedBody is a body that has to go on arriving.
type pacedBody struct {
	io.ReadCloser
	pacer *pacer
	moved time.Time // when the deadline was moved last
	since int       // bytes since then
}

// Read reads what there is, and fails with errSlow if too little comes.
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
