package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"slices"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/upstream"
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
	base := g.homeserver.URL()
	p.Out.URL.Scheme, p.Out.URL.Host = base.Scheme, base.Host
	setRawPath(p.Out.URL, x.path)
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	p.Out.Host = p.In.Host
	upstream.SetForwarded(p.Out, p.In, x.client, x.trusted, g.live().publicScheme())
	g.homeserver.Mark(p.Out.Header)
}

// answered looks at an answer of the homeserver before the client sees any of
// it.
func (g *Gateway) answered(resp *http.Response) error {
	x := exchangeOf(resp.Request.Context())
	if !x.poll.Stop() {
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
		g.ended(resp.Request.Context(), x, x.origin(resp.Request))
	}
	return nil
}

// errSwitched: what comes after such an answer is of another protocol, which
// nothing was asked to speak.
var errSwitched = errors.New("homeserver switches protocols")

// failed carries an answer of the gateway's own through the proxy.
type failed struct{ *reply.Refusal }

func (f failed) Error() string { return f.Message }

// unanswered answers when the homeserver did not, or its answer cannot be given
// to the client.
func (g *Gateway) unanswered(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	x.releaseLeases()
	var own failed
	switch {
	case errors.As(err, &own):
		x.outcome = own.Outcome
		own.Write(w)
	case errors.Is(context.Cause(r.Context()), admission.ErrPollEnded):
		f := drained()
		x.outcome = f.Outcome
		f.Write(w)
	case errors.Is(err, admission.ErrSlow):
		f := tooSlow(r)
		x.outcome = f.Outcome
		f.Write(w)
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil && !errors.Is(context.Cause(r.Context()), errHeld):
		x.outcome = reply.OutcomeGone // nobody is there to read an answer
		w.WriteHeader(http.StatusBadGateway)
	default:
		g.cfg.Log.LogAttrs(r.Context(), slog.LevelWarn, "the homeserver did not answer",
			slog.String("path", x.path), slog.Any("error", err))
		f := reply.UpstreamFailed()
		x.outcome = f.Outcome
		f.Write(w)
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

// refreshVersion is the version of the specification that refresh tokens came
// with.
const refreshVersion = "v1.3"

// answerVersions adds to the versions that the homeserver speaks the one that
// the gateway brings.
func (g *Gateway) answerVersions(resp *http.Response) error {
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return err
	}
	body, err := jsonbody.Parse(data)
	if err != nil {
		g.leave(resp, "versions")
		return nil
	}
	var versions []string
	if err := json.Unmarshal(body.Get("versions"), &versions); err != nil || slices.Contains(versions, refreshVersion) {
		return nil
	}
	text, err := json.Marshal(append(versions, refreshVersion))
	if err != nil {
		return err
	}
	body.Set("versions", jsontext.Value(text))
	jsonbody.SetResponse(resp, body.Encode())
	return nil
}

// answerWellKnown makes clients come back to the gateway.
func (g *Gateway) answerWellKnown(resp *http.Response) error {
	if g.live().PublicURL == "" {
		return nil
	}
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return err
	}
	body, err := jsonbody.Parse(data)
	if err != nil {
		g.leave(resp, ".well-known")
		return nil
	}
	if g.rebaseObject(&body) {
		jsonbody.SetResponse(resp, body.Encode())
	}
	return nil
}

// rebase changes the URL in a member that is a .well-known.
func (g *Gateway) rebase(body *jsonbody.Object, name string) {
	inner, err := jsonbody.Parse(body.Get(name))
	if err == nil && g.rebaseObject(&inner) {
		body.Set(name, inner.Encode())
	}
}

func (g *Gateway) rebaseObject(body *jsonbody.Object) bool {
	const memberHomeserver, memberBase = "m.homeserver", "base_url"
	hs, err := jsonbody.Parse(body.Get(memberHomeserver))
	if g.live().PublicURL == "" || err != nil || hs.Get(memberBase) == nil {
		return false
	}
	hs.Set(memberBase, jsonbody.Quote(g.live().PublicURL))
	body.Set(memberHomeserver, hs.Encode())
	return true
}

// leave notes that an answer stays as it is.
func (g *Gateway) leave(resp *http.Response, what string) {
	g.cfg.Log.LogAttrs(resp.Request.Context(), slog.LevelWarn, "homeserver answer is not the expected JSON",
		slog.String("answer", what))
}
