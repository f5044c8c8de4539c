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
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// newProxy creates the reverse proxy. Paths and queries are forwarded byte by byte:
// signatures of federation cover them, and homeservers differ in how they parse them.
func (g *Gateway) newProxy(transport http.RoundTripper) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        g.rewrite,
		ModifyResponse: g.modifyResponse,
		ErrorHandler:   g.handleError,
		Transport:      transport,
		FlushInterval:  -1, // immediately: a response may arrive in pieces, minutes apart
		BufferPool:     &buffers{},
		ErrorLog:       slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
	}
}

func (g *Gateway) rewrite(p *httputil.ProxyRequest) {
	x := exchangeOf(p.In.Context())
	base := g.homeserver.URL()
	p.Out.URL.Scheme, p.Out.URL.Host = base.Scheme, base.Host
	if p.Out.URL.EscapedPath() != x.path {
		p.Out.URL.Opaque = x.path
	}
	p.Out.URL.RawQuery = p.In.URL.RawQuery
	p.Out.Host = p.In.Host
	upstream.SetForwarded(p.Out, p.In, x.client, x.trusted, g.live().publicScheme())
	g.homeserver.Mark(p.Out.Header)
}

// modifyResponse processes a response of the homeserver before the client receives any
// of it.
func (g *Gateway) modifyResponse(resp *http.Response) error {
	x := exchangeOf(resp.Request.Context())
	if !x.poll.Stop() {
		return refusalError{drained()}
	}
	defer x.releaseLeases() // a slow client must not hold the lease
	if resp.StatusCode < http.StatusOK {
		return errors.New("homeserver switches protocols") // the gateway never forwards Upgrade
	}
	if x.room != "" && resp.StatusCode/100 == 2 {
		return g.confine(resp, x)
	}
	if x.route == matrix.Logout && x.ours() {
		return g.answerLogout(resp, x)
	}
	if resp.StatusCode == http.StatusUnauthorized && usesUIA(x.route) && (x.ours() || x.route.HandsOut()) {
		if err := g.keepChallenge(resp, x); err != nil {
			return err
		}
	}
	switch {
	case x.route == matrix.Refresh:
		return g.answerRefresh(resp, x)
	case x.route.HandsOut():
		if err := g.answerLogin(resp, x); err != nil {
			return err
		}
	}
	if resp.StatusCode == http.StatusUnauthorized && x.ours() {
		return g.answerUnauthorized(resp, x)
	}
	if resp.StatusCode != http.StatusOK || x.route == matrix.Forward {
		return nil
	}
	switch x.route {
	case matrix.Versions:
		return g.answerVersions(resp)
	case matrix.WellKnown:
		if g.live().PublicURL != "" {
			return g.edit(resp, ".well-known", g.rebaseObject)
		}
	}
	if x.ours() {
		g.endSessions(resp.Request.Context(), x, x.origin(resp.Request))
	}
	return nil
}

// refusalError carries a refusal through the proxy as an error.
type refusalError struct{ *reply.Refusal }

func (f refusalError) Error() string { return f.Message }

// handleError answers when there is no response, or it cannot be forwarded.
func (g *Gateway) handleError(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	x.releaseLeases()
	var own refusalError
	var f *reply.Refusal
	switch {
	case errors.As(err, &own):
		f = own.Refusal
	case errors.Is(context.Cause(r.Context()), admission.ErrPollEnded):
		f = drained()
	case errors.Is(err, admission.ErrSlow):
		f = tooSlow(x.route)
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil && !errors.Is(context.Cause(r.Context()), errLeaseExpired):
		x.outcome = reply.OutcomeGone // the client has disconnected
		w.WriteHeader(http.StatusBadGateway)
		return
	default:
		g.cfg.Log.LogAttrs(r.Context(), slog.LevelWarn, "homeserver request failed",
			slog.String("path", x.path), slog.Any("error", err))
		f = reply.UpstreamFailed()
	}
	x.outcome = f.Outcome
	f.Write(w)
}

// buffers pools the buffers of the proxy.
type buffers struct{ pool sync.Pool }

// Get implements [httputil.BufferPool].
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

// Put implements [httputil.BufferPool].
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }

// answerVersions adds the version of the specification that introduced refresh tokens to
// the homeserver's versions.
func (g *Gateway) answerVersions(resp *http.Response) error {
	const refreshVersion = "v1.3"
	return g.edit(resp, "versions", func(body *jsonbody.Object) bool {
		var versions []string
		if err := json.Unmarshal(body.Get("versions"), &versions); err != nil || slices.Contains(versions, refreshVersion) {
			return false
		}
		text, err := json.Marshal(append(versions, refreshVersion))
		body.Set("versions", jsontext.Value(text))
		return err == nil
	})
}

// edit changes a JSON response if change reports true. Other than an object is logged and
// forwarded unchanged.
func (g *Gateway) edit(resp *http.Response, what string, change func(*jsonbody.Object) bool) error {
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return err
	}
	body, err := jsonbody.Parse(data)
	switch {
	case err != nil:
		g.cfg.Log.LogAttrs(resp.Request.Context(), slog.LevelWarn, "homeserver answer is not the expected JSON", slog.String("answer", what))
	case change(&body):
		jsonbody.SetResponse(resp, body.Encode())
	}
	return nil
}

// rebase replaces the URL in a member that is a .well-known object.
func (g *Gateway) rebase(body *jsonbody.Object, name string) {
	inner, err := jsonbody.Parse(body.Get(name))
	if err == nil && g.rebaseObject(&inner) {
		body.Set(name, inner.Encode())
	}
}

// rebaseObject replaces the homeserver's URL in a .well-known object by the gateway's.
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
