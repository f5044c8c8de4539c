package gateway

import (
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/discharger/discharger/discharger/gateway/matrix"
)

// route is the effect of a request on tokens and sessions.
type route = matrix.Effect

const (
	routeForward       = matrix.Forward
	routeOpaque        = matrix.Opaque
	routeLogin         = matrix.Login
	routeRegister      = matrix.Register
	routeRefresh       = matrix.Refresh
	routeAdminRegister = matrix.AdminRegister
	routeAdminLogin    = matrix.AdminLogin
	routeLogout        = matrix.Logout
	routeLogoutAll     = matrix.LogoutAll
	routePassword      = matrix.Password
	routeDeactivate    = matrix.Deactivate
	routeDeleteDevice  = matrix.DeleteDevice
	routeDeleteDevices = matrix.DeleteDevices
	routeVersions      = matrix.Versions
	routeWellKnown     = matrix.WellKnown
)

// clientPrefix begins the paths of the client-server API.
const clientPrefix = "/_matrix/client/"

// readsBody reports whether the gateway reads the body of a request before it
// passes it on.
func readsBody(r route) bool {
	return r.HandsOut() || r == routePassword || r == routeDeleteDevices
}

// enter reads the target of a request and finds its route. It fails for a request
// that must not be passed on, whoever sends it.
func (x *exchange) enter(r *http.Request) *failure {
	x.path, _, _ = strings.Cut(r.RequestURI, "?")
	if !passable(r.Method) {
		return unrecognized(http.StatusMethodNotAllowed)
	}
	target, err := matrix.ParseTarget(r.RequestURI)
	if err != nil {
		return unrecognized(http.StatusBadRequest)
	}
	x.path = target.Path
	x.match = target.Match(r.Method)
	x.route = x.match.Effect()
	if x.match.Refused != 0 {
		return unrecognized(x.match.Refused)
	}
	return nil
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

// setRawPath makes a URL be written with a path as it is.
func setRawPath(u *url.URL, path string) {
	if u.EscapedPath() != path {
		u.Opaque = path
	}
}

// checkBody decides about the content type of a request where tokens from before the
// gateway are refused. Homeservers look for tokens in forms too, and differ in how
// they read the header. So there is one of it, in the grammar of RFC 9110, and a form
// carries no token.
func (g *Gateway) checkBody(w http.ResponseWriter, r *http.Request, x *exchange) *failure {
	if r.ContentLength == 0 || !g.live().Legacy.bounds() {
		return nil
	}
	mediaType, ok := contentType(r.Header["Content-Type"])
	if !ok {
		return badRequest(codeNotJSON, "The content type is malformed.")
	}
	body := x.match.Body()
	if !body.TakesType(mediaType) {
		return &failure{
			status: http.StatusUnsupportedMediaType, code: codeNotJSON, message: "This content type is not accepted here.",
			outcome: outcomeMalformed,
		}
	}
	switch {
	case mediaType != matrix.TypeForm && mediaType != matrix.TypeMultipart:
		return nil
	case body == matrix.BodyAny && hasCredential(r):
		return nil // a homeserver that also finds a token in the body refuses the request
	case mediaType == matrix.TypeMultipart || x.match.Route != nil && body == matrix.BodyAny:
		return missingToken("A body of this content type needs an access token in the Authorization header.")
	}
	g.hurry(w, bodyPatience)
	data, f := g.readRequest(r)
	if f != nil {
		return f
	}
	g.hurry(w, 0)
	if _, tokens := cutToken(string(data)); len(tokens) > 0 {
		return missingToken("An access token does not belong into a form.")
	}
	return nil
}

// hasCredential reports whether a token is elsewhere than in the body.
func hasCredential(r *http.Request) bool {
	c, f := findCredential(r)
	return f == nil && (c.token != "" || r.Header[headerAuthorization] != nil)
}

// contentType reads the values of the Content-Type header strictly, and returns the
// media type in lower case, without parameters. It reports false if there are
// several values, or one that is not of the grammar of RFC 9110, section 8.3.1, to
// the letter: decoders of other grammars may read it as another type.
func contentType(values []string) (mediaType string, ok bool) {
	switch len(values) {
	case 0:
		return "", true
	case 1:
	default:
		return "", false
	}
	for _, c := range []byte(values[0]) {
		if c >= 0x7f || c < ' ' && c != '\t' {
			return "", false
		}
	}
	bare, _, _ := strings.Cut(values[0], ";")
	mediaType, params, err := mime.ParseMediaType(values[0])
	if err != nil || !strings.EqualFold(strings.TrimSpace(bare), mediaType) || strings.Count(mediaType, "/") != 1 ||
		strings.HasPrefix(bare, " ") || strings.HasPrefix(bare, "\t") {
		return "", false
	}
	if strings.Contains(values[0], "*") && mediaType != "*/*" {
		return "", false // parameters in pieces, RFC 2231
	}
	if strings.Count(unquoted(values[0]), "=") != len(params) {
		return "", false // a parameter is there twice
	}
	return mediaType, true
}

// unquoted returns a header value without its quoted strings.
func unquoted(s string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
