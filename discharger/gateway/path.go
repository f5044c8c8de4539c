package gateway

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// route says what a request is to the gateway.
type route uint8

const (
	routeForward route = iota // unwrap the token, pass on
	routeOpaque               // pass on as it is: whatever is in there that looks like a token is somebody else's
	routeDenied               // looks like a path that hands out tokens, but is spelled otherwise

	// Answers that carry tokens.
	routeLogin
	routeRegister
	routeRefresh
	routeAdminRegister
	routeAdminLogin

	// What ends sessions.
	routeLogout
	routeLogoutAll
	routePassword
	routeDeactivate
	routeDeleteDevice
	routeDeleteDevices

	// Answers that say where the homeserver is, and what it can do.
	routeVersions
	routeWellKnown
)

// handsOut reports whether answers of the route carry tokens.
func (r route) handsOut() bool { return r >= routeLogin && r <= routeAdminLogin }

// readsBody reports whether the body of a request is read before it is passed
// on.
func (r route) readsBody() bool {
	return r.handsOut() || r == routePassword || r == routeDeleteDevices
}

const (
	clientPrefix = "/_matrix/client/"
	adminPrefix  = "/_synapse/admin/"
)

// clientRoutes are the paths below /_matrix/client and a version. The versions
// are those under which any homeserver answers.
var clientRoutes = map[string]struct {
	method   string
	route    route
	versions []string
}{
	"login":              {http.MethodPost, routeLogin, []string{"api/v1", "r0", "v3", "unstable"}},
	"register":           {http.MethodPost, routeRegister, []string{"api/v1", "r0", "v3", "unstable"}},
	"refresh":            {http.MethodPost, routeRefresh, []string{"r0", "v1", "v3", "unstable", "unstable/org.matrix.msc2918"}},
	"logout":             {http.MethodPost, routeLogout, []string{"api/v1", "r0", "v3", "unstable"}},
	"logout/all":         {http.MethodPost, routeLogoutAll, []string{"api/v1", "r0", "v3", "unstable"}},
	"account/password":   {http.MethodPost, routePassword, []string{"r0", "v3", "unstable"}},
	"account/deactivate": {http.MethodPost, routeDeactivate, []string{"r0", "v3", "unstable"}},
	"delete_devices":     {http.MethodPost, routeDeleteDevices, []string{"r0", "v3", "unstable"}},
}

// opaque are paths whose tokens are of other kinds, below which nothing is
// looked at: between servers, to identity servers and application services, and
// for unsubscribing from mail.
var opaque = []string{
	"/_matrix/federation/", "/_matrix/key/", "/_matrix/app/", "/_matrix/identity/", "/_synapse/client/", "/_synapse/mas/",
}

// match tells the route of a request by its method and its path as it was sent,
// still encoded. Nothing is normalized: a spelling that is not exactly one of
// those known is another path, and one that only looks like a path that hands
// out tokens is denied, whatever the homeserver would make of it.
func match(method, path string) route {
	rest, ok := strings.CutPrefix(path, clientPrefix)
	if !ok {
		return matchOther(method, path)
	}
	switch {
	case rest == "versions" && method == http.MethodGet:
		return routeVersions
	case method == http.MethodGet || method == http.MethodPut || method == http.MethodHead:
		return deny(path, method, routeForward)
	}
	version, name, ok := cutVersion(rest)
	if !ok {
		return deny(path, method, routeForward)
	}
	if c, ok := clientRoutes[name]; ok && slices.Contains(c.versions, version) {
		if c.method != method {
			return routeForward
		}
		return c.route
	}
	if id, ok := strings.CutPrefix(name, "devices/"); ok && method == http.MethodDelete && id != "" && !strings.Contains(id, "/") {
		return routeDeleteDevice
	}
	return deny(path, method, routeForward)
}

// cutVersion splits what comes after /_matrix/client/.
func cutVersion(rest string) (version, name string, ok bool) {
	for _, v := range [...]string{"v3", "r0", "v1", "unstable/org.matrix.msc2918", "unstable", "api/v1"} {
		if name, ok := strings.CutPrefix(rest, v); ok && len(name) > 1 && name[0] == '/' {
			return v, name[1:], true
		}
	}
	return "", "", false
}

func matchOther(method, path string) route {
	switch path {
	case "/_synapse/admin/v1/register":
		if method == http.MethodPost {
			return routeAdminRegister
		}
		return routeForward
	case "/.well-known/matrix/client":
		if method == http.MethodGet {
			return routeWellKnown
		}
		return routeForward
	}
	for _, prefix := range opaque {
		if strings.HasPrefix(path, prefix) {
			if clean(path) {
				return routeOpaque
			}
			return routeDenied
		}
	}
	if rest, ok := strings.CutPrefix(path, adminPrefix+"v1/users/"); ok && method == http.MethodPost {
		if user, last, ok := strings.Cut(rest, "/"); ok && user != "" && last == "login" {
			return routeAdminLogin
		}
	}
	return deny(path, method, routeForward)
}

// clean reports whether a path has no segment that somebody might resolve.
func clean(path string) bool {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.IndexByte(s, '%') >= 0 {
			decoded, err := url.PathUnescape(s)
			if err != nil {
				return false
			}
			s = decoded
		}
		if s == "." || s == ".." || s == "" && i > 0 && i < len(segments)-1 {
			return false
		}
	}
	return true
}

// containers are the segments below which a name can be anything, login too.
var containers = []string{
	"rooms", "user", "devices", "directory", "profile", "presence", "room_keys", "pushrules", "thirdparty", "join", "knock",
	"sendtodevice", "media", "download", "thumbnail", "room_summary", "users", "rooms_by_alias", "tags", "static",
}

// deny gives routeDenied for a path that ends like one that hands out tokens,
// and the route given for any other. Reading such a path is no harm where it is
// spelled plainly: GET of login lists the ways to log in.
func deny(path, method string, otherwise route) route {
	if !suspicious(path) {
		return otherwise
	}
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return routeDenied
	}
	segments := strings.FieldsFunc(strings.ToLower(decoded), func(r rune) bool { return r == '/' || r == '\\' })
	for len(segments) > 0 && segments[len(segments)-1] == "." {
		segments = segments[:len(segments)-1]
	}
	if len(segments) == 0 {
		return otherwise
	}
	switch segments[len(segments)-1] {
	case "login", "register", "refresh":
	default:
		return otherwise
	}
	if !clean(path) || slices.Contains(segments, ".") || slices.Contains(segments, "..") {
		return routeDenied
	}
	if !strings.HasPrefix(segments[0], "_") || method == http.MethodGet || method == http.MethodHead {
		return otherwise
	}
	for _, s := range segments[:len(segments)-1] {
		if slices.Contains(containers, s) {
			return otherwise
		}
	}
	return routeDenied
}

// suspicious is a quick look that lets nearly every path pass.
func suspicious(path string) bool {
	if strings.IndexByte(path, '%') >= 0 {
		return true
	}
	// The last letters of the three names, whatever comes after: a slash, a dot.
	end := strings.TrimRight(path, "/.\\")
	if len(end) < 5 {
		return false
	}
	switch end[len(end)-1] | 0x20 {
	case 'n', 'r', 'h':
		last := end[strings.LastIndexAny(end, "/\\")+1:]
		return strings.EqualFold(last, "login") || strings.EqualFold(last, "register") || strings.EqualFold(last, "refresh")
	}
	return false
}
