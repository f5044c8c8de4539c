package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync"
)

// newProxy makes what passes requests on. Paths and queries go out as they came
// in, byte by byte: signatures between servers cover them, and homeservers
// differ in how they read them.
func (g *Gateway) newProxy(transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		ModifyResponse: g.answered,
		ErrorHandler:   g.unanswered,
		Transport:      transport,
		FlushInterval:  -1, // at once: an answer may come in pieces, minutes apart
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
	}
}

func (g *Gateway) rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.In.Context())
	p.Out.URL.Scheme, p.Out.URL.Host = g.upstream.Scheme, g.upstream.Host
	setRawPath(p.Out.URL, x.path)
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	p.Out.Host = p.In.Host
	dropForwarded(p.Out.Header)
	forwarded(p.Out, p.In, x.client, x.trusted, g.live().publicScheme())
	g.markLoop(p.Out.Header)
}

// answered looks at an answer of the homeserver before the client sees any of
// it.
func (g *Gateway) answered(resp *http.Response) error {
	x := exchangeOf(resp.Request.Context())
	if !x.poll.stop() {
		return failed{drained()}
	}
	defer x.releaseLeases() // the client may take its time to read the answer
	if resp.StatusCode < http.StatusOK {
		return errSwitched
	}
	if x.room != "" && resp.StatusCode/100 == 2 {
		return g.confine(resp, x)
	}
	if x.route == routeLogout && x.ours() {
		return g.answerLogout(resp, x)
	}
	if resp.StatusCode == http.StatusUnauthorized && usesUIA(x.route) && (x.ours() || x.route.HandsOut()) {
		if err := g.challenged(resp, x); err != nil {
			return err
		}
	}
	switch {
	case x.route == routeRefresh:
		return g.answerRefresh(resp, x)
	case x.route.HandsOut():
		if err := g.answerLogin(resp, x); err != nil {
			return err
		}
	}
	if resp.StatusCode == http.StatusUnauthorized && x.ours() {
		return g.rejected(resp, x)
	}
	if resp.StatusCode != http.StatusOK || x.route == routeForward {
		return nil
	}
	switch x.route {
	case routeVersions:
		return g.answerVersions(resp)
	case routeWellKnown:
		return g.answerWellKnown(resp)
	}
	if x.ours() {
		g.ended(resp.Request.Context(), x, forWhom{x.client, resp.Request.UserAgent()})
	}
	return nil
}

// errSwitched: what comes after such an answer is of another protocol, which
// nothing was asked to speak.
var errSwitched = errors.New("homeserver switches protocols")

// failed carries an answer of the gateway's own through the proxy.
type failed struct{ *failure }

func (f failed) Error() string { return f.message }

// unanswered answers when the homeserver did not, or its answer cannot be given
// to the client.
func (g *Gateway) unanswered(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	x.releaseLeases()
	var own failed
	switch {
	case errors.As(err, &own):
		x.outcome = own.outcome
		own.write(w)
	case errors.Is(context.Cause(r.Context()), errPollEnded):
		f := drained()
		x.outcome = f.outcome
		f.write(w)
	case errors.Is(err, errSlow):
		f := tooSlow(r)
		x.outcome = f.outcome
		f.write(w)
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil && !errors.Is(context.Cause(r.Context()), errHeld):
		x.outcome = outcomeGone // nobody is there to read an answer
		w.WriteHeader(http.StatusBadGateway)
	default:
		g.cfg.Log.LogAttrs(r.Context(), slog.LevelWarn, "the homeserver did not answer",
			slog.String("path", x.path), slog.Any("error", err))
		f := upstreamFailed()
		x.outcome = f.outcome
		f.write(w)
	}
}

// buffers lends the memory that bodies are copied through.
type buffers struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get lends a buffer.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, bufferSize)
}

// Put takes it back.
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }
