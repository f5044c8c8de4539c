package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
)

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := g.cfg.Clock()
	cleanHeaders(r)
	x := &exchange{method: r.Method}
	refused := x.enter(r)
	x.client, x.trusted = g.clientAddress(r)
	out := &recorder{ResponseWriter: w}
	out.pace(r)
	defer g.finish(r, x, out, start)
	defer x.place.release()
	defer x.body.release()
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	f := refused
	if f == nil {
		f = g.refuseLoop(out, r)
	}
	if f == nil {
		f = g.enter(x)
	}
	if f == nil {
		f = g.handle(out, r, x)
	}
	if f != nil {
		x.outcome = f.outcome
		f.write(out)
	}
}

// handle does what the route asks for. A failure is still to be written.
func (g *Gateway) handle(w http.ResponseWriter, r *http.Request, x *exchange) *failure {
	defer x.releaseLeases()
	switch {
	case r.Method == http.MethodOptions:
		dropCredential(r)
		g.pass(w, r, x)
		return nil
	case x.route == routeOpaque:
		g.pass(w, r, x)
		return nil
	}
	if f := g.checkBody(w, r, x); f != nil {
		return f
	}
	switch {
	case x.route == routeRefresh:
		return g.refresh(w, r, x)
	case readsBody(x.route):
		g.hurry(w, bodyPatience)
		if f := g.prepare(r, x); f != nil {
			return f
		}
		g.hurry(w, 0)
	default:
		if f := g.prepare(r, x); f != nil {
			return f
		}
	}
	if x.route == routeLogout && x.ours() {
		return g.logout(w, r, x)
	}
	g.pass(w, r, x)
	return nil
}

// logout answers POST /logout with a token of the gateway's.
func (g *Gateway) logout(w http.ResponseWriter, r *http.Request, x *exchange) *failure {
	pass, f := g.decideLogout(r.Context(), x)
	switch {
	case f != nil:
		return f
	case pass:
		defer g.left(context.WithoutCancel(r.Context()), x) // the proxy panics when the client has gone
		g.pass(w, r, x)
		return nil
	}
	x.outcome = outcomeOwn
	x.releaseLeases()
	h := w.Header()
	cors(h)
	h.Set("Content-Type", "application/json")
	_, _ = w.Write(object{}.encode()) // the client has gone: nothing to do
	return nil
}

// bodyPatience is how long a client may take to send what the gateway reads
// before it does anything else.
const bodyPatience = 30 * time.Second

// prepare finds out whose request it is, and whatever else has to be known
// before it is passed on.
func (g *Gateway) prepare(r *http.Request, x *exchange) *failure {
	if f := g.identify(r, x); f != nil {
		return f
	}
	switch {
	case x.route.HandsOut():
		return g.prepareLogin(r, x)
	case x.route == routePassword, x.route == routeDeleteDevices, x.route == routeDeleteDevice:
		return g.prepareDevices(r, x)
	case x.route == routeVersions, x.route == routeWellKnown, x.room != "":
		r.Header.Del("Accept-Encoding")
	}
	return nil
}

// identify looks at the token. One of the gateway's is replaced by the
// homeserver's.
func (g *Gateway) identify(r *http.Request, x *exchange) *failure {
	c, f := findCredential(r)
	if f != nil {
		return f
	}
	x.kind, x.token = c.kind, c.token != ""
	switch {
	case !x.token:
		return nil
	case x.match.Public():
		dropCredential(r) // clients that log in again may still send the token that they had
		return nil
	case c.kind == token.Foreign && g.sealer.WasOurs(c.token):
		return unknownToken("Unknown access token.", true)
	case c.kind == token.Foreign:
		return g.admitForeign(r, x, c)
	case c.kind == token.Refresh:
		return unknownToken("A refresh token is not an access token.", true)
	}
	if f := g.authenticate(r, x, c); f != nil {
		return f
	}
	if x.narrowed && !x.match.Allows(matrix.Limited) {
		return forbidden("This access token was narrowed, and does not allow this.")
	}
	g.unwrap(r, x, c)
	return nil
}

// unwrap puts the homeserver's token in the place of the gateway's.
func (g *Gateway) unwrap(r *http.Request, x *exchange, c credential) {
	if c.from == fromQuery {
		r.URL.RawQuery = c.query
		r.URL.ForceQuery = false
	}
	r.Header[headerAuthorization] = []string{bearer + x.upstream}
}

// dropCredential takes a token of the gateway's out of a request.
func dropCredential(r *http.Request) {
	c, f := findCredential(r)
	if f != nil || c.kind == token.Foreign {
		return
	}
	if c.from == fromQuery {
		r.URL.RawQuery = c.query
		return
	}
	r.Header.Del(headerAuthorization)
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	pacer  pacer
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 || r.status < http.StatusOK {
		r.status = status
	}
	r.pacer.writing()
	r.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.pacer.writing()
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets the proxy flush and hijack.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// finish counts the request and writes its line. The query is not in it, and
// no header: tokens are.
func (g *Gateway) finish(r *http.Request, x *exchange, out *recorder, start time.Time) {
	out.pacer.writing() // what is left of the answer
	g.metrics.request(x)
	if !g.cfg.Access.Enabled(r.Context(), slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs,
		slog.String("method", r.Method), slog.String("path", x.path), slog.Int("status", out.status), slog.Int64("bytes", out.bytes),
		slog.String("from", x.client.String()), slog.Duration("took", g.cfg.Clock().Sub(start)), slog.String("outcome", x.outcome.String()))
	if x.ours() {
		attrs = append(attrs, slog.String("session", x.identity.Session.String()))
	}
	g.cfg.Access.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}
