package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/api"
)

// ServeHTTP answers one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := g.cfg.Clock()
	x := &exchange{method: r.Method, path: rawPath(r)}
	x.route = match(r.Method, x.path)
	x.client, x.trusted = g.clientAddress(r)
	out := &recorder{ResponseWriter: w}
	defer g.finish(r, x, out, start)
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	if f := g.handle(out, r, x); f != nil {
		x.outcome = f.outcome
		f.write(out)
	}
}

// handle does what the route asks for. A failure is still to be written.
func (g *Gateway) handle(w http.ResponseWriter, r *http.Request, x *exchange) *failure {
	defer x.releaseLeases()
	switch {
	case !passable(r.Method):
		return &failure{status: http.StatusMethodNotAllowed, code: codeUnrecognized, message: "Unrecognized request.", outcome: outcomeDenied}
	case r.Method == http.MethodOptions:
		dropCredential(r)
	case x.route == routeDenied:
		return &failure{status: http.StatusNotFound, code: codeUnrecognized, message: "Unrecognized request.", outcome: outcomeDenied}
	case x.route == routeOpaque:
	case x.route == routeRefresh:
		return g.refresh(w, r, x)
	case x.route.readsBody():
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

// hurry bounds how long reading from the client may take; 0 is no bound. Where
// that is not possible, there is none.
func (g *Gateway) hurry(w http.ResponseWriter, d time.Duration) {
	var end time.Time
	if d > 0 {
		end = g.cfg.Clock().Add(d)
	}
	_ = http.NewResponseController(w).SetReadDeadline(end)
}

// passable reports whether a method is one of Matrix's, or harmless. TRACE is
// not: its answer is the request, with the homeserver's token in it.
func passable(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return true
	}
	return false
}

// prepare finds out whose request it is, and whatever else has to be known
// before it is passed on.
func (g *Gateway) prepare(r *http.Request, x *exchange) *failure {
	if f := g.refuseForms(r); f != nil {
		return f
	}
	if f := g.identify(r, x); f != nil {
		return f
	}
	switch {
	case x.route.handsOut():
		return g.prepareLogin(r, x)
	case x.route == routePassword, x.route == routeDeleteDevices, x.route == routeDeleteDevice:
		var f *failure
		if x.route != routeDeleteDevice {
			x.body, f = readRequest(r)
		}
		if f != nil || !x.ours() {
			return f
		}
		devices := x.deletes()
		if len(devices) > maxDeletes {
			return badRequest(codeTooLarge, "Too many devices in one request.")
		}
		for _, device := range devices {
			if err := g.lease(r.Context(), x, x.identity.User, device); err != nil {
				return g.refusal(r.Context(), &api.UnavailableError{Err: err})
			}
		}
	case x.route == routeVersions, x.route == routeWellKnown:
		r.Header.Del("Accept-Encoding")
	}
	return nil
}

// maxDeletes bounds the devices that one request deletes: each has a lease, and an
// order to the service.
const maxDeletes = 500

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
	case c.kind == kindForeign && g.sealer.damaged(c.token):
		return unknownToken("Unknown access token.", true)
	case c.kind == kindForeign:
		return g.admitForeign(r, x, c)
	case x.route == routeLogin || x.route == routeRegister || x.route == routeAdminRegister:
		// Clients that log in again may still send what they had.
		dropCredential(r)
		return nil
	case c.kind == kindRefresh:
		return unknownToken("A refresh token is not an access token.", true)
	}
	if f := g.authenticate(r, x, c); f != nil {
		return f
	}
	if x.narrowed && accountPath(x.path) {
		return forbidden("This access token was narrowed, and does not allow to change the account.")
	}
	if c.from == fromQuery {
		r.URL.RawQuery = c.query
		r.URL.ForceQuery = false
	}
	r.Header[headerAuthorization] = []string{bearer + x.upstream}
	return nil
}

// dropCredential takes a token of the gateway's out of a request.
func dropCredential(r *http.Request) {
	c, f := findCredential(r)
	if f != nil || c.kind == kindForeign {
		return
	}
	if c.from == fromQuery {
		r.URL.RawQuery = c.query
		return
	}
	r.Header.Del(headerAuthorization)
}

// rawPath is the path as the client sent it. The URL's own idea of it is the
// same for nearly all.
func rawPath(r *http.Request) string {
	if strings.HasPrefix(r.RequestURI, "/") {
		path, _, _ := strings.Cut(r.RequestURI, "?")
		return path
	}
	return r.URL.EscapedPath()
}

// setRawPath makes a URL be written with a path as it is.
func setRawPath(u *url.URL, path string) {
	if u.EscapedPath() == path || strings.HasPrefix(path, "//") {
		return
	}
	u.Opaque = path
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 || r.status < http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write counts.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets the proxy flush and hijack.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// finish counts the request and writes its line. The query is not in it, and
// no header: tokens are.
func (g *Gateway) finish(r *http.Request, x *exchange, out *recorder, start time.Time) {
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
