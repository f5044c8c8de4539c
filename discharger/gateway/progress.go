package gateway

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
	readPatience  = 30 * time.Second // for minProgress bytes of a body
	minProgress   = 1 << 10
	writePatience = time.Minute // for one piece of an answer, of up to 32 KiB
	paceEvery     = time.Second // a deadline is moved this often
)

var errSlow = errors.New("client sends too slowly")

// pacer moves the deadlines of a connection while a request is answered. They are
// real time, whatever the gateway's clock shows.
type pacer struct {
	conn    *http.ResponseController
	end     time.Time // of reading the body; zero: there is none
	written time.Time // when the deadline for writing was moved last
}

// pace bounds how long a client may stand still.
func (r *recorder) pace(req *http.Request) {
	r.pacer.conn = http.NewResponseController(r.ResponseWriter)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &pacedBody{ReadCloser: req.Body, pacer: &r.pacer}
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
		_ = p.conn.SetWriteDeadline(now.Add(writePatience))
	}
}

// hurry bounds how long reading the body may take in all, for bodies that the
// gateway reads before it does anything else; 0 is no bound.
func (g *Gateway) hurry(w http.ResponseWriter, d time.Duration) {
	r, ok := w.(*recorder)
	if !ok {
		return
	}
	r.pacer.end = time.Time{}
	if d > 0 {
		r.pacer.end = time.Now().Add(d)
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
	if b.moved.IsZero() || b.since >= minProgress && now.Sub(b.moved) >= paceEvery {
		deadline := now.Add(readPatience)
		if end := b.pacer.end; !end.IsZero() && end.Before(deadline) {
			deadline = end
		}
		b.moved, b.since = now, 0
		_ = b.pacer.conn.SetReadDeadline(deadline)
	}
	n, err := b.ReadCloser.Read(p)
	b.since += n
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return n, err
}

// tooSlow is the answer to a client whose body does not arrive.
func tooSlow(r *http.Request) *failure {
	f := &failure{
		status: http.StatusRequestTimeout, code: codeUnknown, message: "The body of the request did not arrive in time.", outcome: outcomeSlow,
	}
	if x := exchangeOf(r.Context()); x != nil && x.route == routeRefresh {
		return f.asText() // clients take any JSON there for the end of the session
	}
	return f
}
