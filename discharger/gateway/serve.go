package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
)

// ServeHTTP forwards or answers a request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := g.cfg.clock()
	upstream.CleanHeaders(r)
	x := &exchange{method: r.Method}
	refused := x.matchRoute(r)
	x.client, x.trusted = g.clientAddress(r)
	out := admission.NewRecorder(w, r)
	defer g.finish(r, x, out, start)
	defer x.place.Release()
	defer x.body.Release()
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	f := refused
	if f == nil {
		f = g.refuseLoop(out, r)
	}
	if f == nil {
		f = g.admit(x)
	}
	if f == nil {
		f = g.handle(out, r, x)
	}
	if f != nil {
		x.outcome = f.Outcome
		f.Write(out)
	}
}

// handle serves a request that was admitted. The caller writes the refusal.
func (g *Gateway) handle(w http.ResponseWriter, r *http.Request, x *exchange) *reply.Refusal {
	defer x.releaseLeases()
	if r.Method == http.MethodOptions || x.route == matrix.Opaque {
		if r.Method == http.MethodOptions {
			dropCredential(r)
		}
		g.forward(w, r, x)
		return nil
	}
	if f := g.checkBody(r, x); f != nil {
		return f
	}
	if x.route == matrix.Refresh {
		return g.refresh(w, r, x)
	}
	if f := g.prepare(r, x); f != nil {
		return f
	}
	if x.route == matrix.Logout && x.ours() {
		return g.logout(w, r, x)
	}
	g.forward(w, r, x)
	return nil
}

// logout answers POST /logout with a gateway token.
func (g *Gateway) logout(w http.ResponseWriter, r *http.Request, x *exchange) *reply.Refusal {
	pass, f := g.decideLogout(r.Context(), x)
	switch {
	case f != nil:
		return f
	case pass:
		defer func() { // the proxy panics when the client has disconnected
			if !x.loggedOut {
				g.recordLogout(context.WithoutCancel(r.Context()), x.identity)
				g.outbox.Wake()
			}
		}()
		g.forward(w, r, x)
		return nil
	}
	x.releaseLeases()
	x.answer(w, jsonbody.Object{})
	return nil
}

// answer writes a response of the gateway's own. A write fails if the client has
// disconnected; it can repeat the request.
func (x *exchange) answer(w http.ResponseWriter, body jsonbody.Object) {
	x.outcome = reply.OutcomeOwn
	h, text := w.Header(), body.Encode()
	reply.SetCORS(h)
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text)
}

// prepare identifies the session of a request and prepares its route.
func (g *Gateway) prepare(r *http.Request, x *exchange) *reply.Refusal {
	if f := g.identify(r, x); f != nil {
		return f
	}
	switch {
	case x.route.HandsOut():
		return g.prepareLogin(r, x)
	case x.route == matrix.Password, x.route == matrix.DeleteDevices, x.route == matrix.DeleteDevice:
		return g.prepareDevices(r, x)
	case x.route == matrix.Versions, x.route == matrix.WellKnown, x.room != "":
		r.Header.Del("Accept-Encoding")
	}
	return nil
}

// identify verifies the token of a request and replaces a gateway token by the
// homeserver's.
func (g *Gateway) identify(r *http.Request, x *exchange) *reply.Refusal {
	c, err := token.FindCredential(r)
	if err != nil {
		return reply.MissingToken(err.Error())
	}
	x.kind, x.token = c.Kind, c.Text != ""
	switch {
	case !x.token:
		return nil
	case x.match.Route.Public:
		dropCredential(r) // clients that log in again may still send their former token
		return nil
	case c.Kind == token.Foreign && g.sealer.WasOurs(c.Text):
		return reply.UnknownToken("Unknown access token.", true)
	case c.Kind == token.Foreign:
		return g.admitForeign(r, x, c)
	case c.Kind == token.Refresh:
		return reply.UnknownToken("A refresh token is not an access token.", true)
	}
	if f := g.authenticate(r, x, c); f != nil {
		return f
	}
	if x.narrowed && !x.match.Allows(matrix.Limited) {
		return reply.Forbidden("This access token was narrowed, and does not allow this.")
	}
	if c.InQuery {
		r.URL.RawQuery = c.Query
		r.URL.ForceQuery = false
	}
	r.Header[token.HeaderAuthorization] = []string{token.Bearer + x.upstream}
	return nil
}

// dropCredential removes a gateway token from a request.
func dropCredential(r *http.Request) {
	c, err := token.FindCredential(r)
	if err != nil || c.Kind == token.Foreign {
		return
	}
	if c.InQuery {
		r.URL.RawQuery = c.Query
		return
	}
	r.Header.Del(token.HeaderAuthorization)
}

// finish counts and logs a request, without its query and headers: they contain tokens.
func (g *Gateway) finish(r *http.Request, x *exchange, out *admission.Recorder, start time.Time) {
	status, written := out.End()
	g.metrics.Request(x.kind, x.token, x.outcome)
	if !g.cfg.Access.Enabled(r.Context(), slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs,
		slog.String("method", r.Method), slog.String("path", x.path), slog.Int("status", status), slog.Int64("bytes", written),
		slog.String("from", x.client.String()), slog.Duration("took", g.cfg.clock().Sub(start)), slog.String("outcome", x.outcome.String()))
	if x.ours() {
		attrs = append(attrs, slog.String("session", x.identity.Session.String()))
	}
	g.cfg.Access.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}

// exchange is the state of one request and its response.
type exchange struct {
	route   matrix.Effect
	method  string
	path    string // unchanged, without the query
	match   matrix.Match
	room    string // the only room whose events the response may contain; empty: any
	client  netip.Addr
	trusted bool // the peer is a trusted proxy

	kind      token.Kind          // of the token
	token     bool                // present
	identity  homeserver.Identity // of the session, if the token is the gateway's
	upstream  string              // the homeserver's token of the session
	narrowed  bool                // the holder added conditions
	expired   bool                // the discharge has expired, on routes that accept that
	loggedOut bool                // the forwarded logout has removed the device
	leased    leased
	poll      *admission.Poll // nil: not a long poll

	place     admission.Place
	body      jsonbody.Share // memory of the parsed bodies
	waitUntil time.Time      // deadline of waiting for the service; zero: not waited yet

	login   login    // routes that hand out tokens
	uia     uiaState // routes with user-interactive authentication
	outcome reply.Outcome
}

// ours reports whether the request came with a gateway token.
func (x *exchange) ours() bool { return x.upstream != "" }

// origin returns the client's address and name, for requests on its behalf.
func (x *exchange) origin(r *http.Request) upstream.Origin {
	return upstream.Origin{Addr: x.client, UserAgent: r.UserAgent()}
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}
