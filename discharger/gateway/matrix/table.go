package matrix

import (
	"fmt"
	"net/http"
	"strings"
)

// row is a line of the table: all methods and versions of one pattern. Flags are letters:
//
//	t  accepts a token limited in time or to addresses
//	r  accepts a read-only token; only with GET
//	m  accepts a token narrowed to the room in the path
//	e  the answer holds events, which must be of the room in the path
//	p  the homeserver needs no token, and ignores one
//	l  long poll
//	f  the body is a form
//	u  the body is an upload
//	x  also with PUT, and a transaction id below the path
type row struct {
	methods, versions, pattern, flags string
	effect                            Effect
}

// The versions of paths below /_matrix/client.
const (
	vAll   = "api/v1 r0 v3 unstable" // the oldest paths
	vR0    = "r0 v3 unstable"
	vV1    = "v1 unstable"
	vMedia = "r0 v1 v3" // below /_matrix/media
)

// clientRows are below /_matrix/client and a version. A narrowed token can read and
// write in rooms, and use the routes that a client needs for that. It cannot use routes
// of the account, its profile, data, push rules, keys and devices, nor get another
// token, which would not be narrowed.
var clientRows = []row{
	// Tokens.
	{"GET", vAll, "login", "p", Forward},
	{"POST", vAll, "login", "p", Login},
	{"GET", "r0 v3 v1 unstable", "login/sso/redirect", "p", Forward},
	{"GET", "r0 v3 v1 unstable", "login/sso/redirect/{provider}", "p", Forward},
	{"GET", vAll, "login/cas/redirect", "p", Forward},
	{"GET", vAll, "login/cas/ticket", "p", Forward},
	{"POST", "v1 unstable", "login/get_token", "", Forward},
	{"POST", "unstable/org.matrix.msc3882", "login/token", "", Forward},
	{"POST", vAll, "register", "p", Register},
	{"GET", "r0 v3 v1 unstable", "register/available", "p", Forward},
	{"POST", "r0 v3 unstable", "register/{medium}/requestToken", "p", Forward},
	{"GET", vV1, "register/{type}/validity", "p", Forward},
	{"POST", "r0 v1 v3 unstable unstable/org.matrix.msc2918", "refresh", "p", Refresh},
	{"POST", vR0, "tokenrefresh", "p", Forward},
	{"POST", vAll, "logout", "", Logout},
	{"POST", vAll, "logout/all", "", LogoutAll},
	{"GET", "v1 unstable/org.matrix.msc2965", "auth_metadata", "p", Forward},
	{"GET", "v1 unstable/org.matrix.msc2965", "auth_issuer", "p", Forward},
	{"GET POST", "api/v1 r0 v3 unstable", "auth/{stage}/fallback/web", "pf", Forward},
	{"POST", vR0, "user/{user}/openid/request_token", "", Forward},
	{"GET", vR0, "password_policy", "p", Forward},

	// The account.
	{"GET", vR0, "account/whoami", "trm", Forward},
	{"POST", vR0, "account/password", "", Password},
	{"POST", vR0, "account/deactivate", "", Deactivate},
	{"POST", vR0, "account/password/{medium}/requestToken", "p", Forward},
	{"GET POST", vR0, "account/3pid", "", Forward},
	{"POST", vR0, "account/3pid/{action}", "", Forward},
	{"POST", vR0, "account/3pid/{medium}/requestToken", "p", Forward},
	{"GET", vR0, "account_validity/renew", "p", Forward},
	{"POST", vR0, "account_validity/send_mail", "", Forward},
	{"GET", "unstable", "registration/{medium}/submit_token", "p", Forward},
	{"GET POST", "unstable", "add_threepid/{medium}/submit_token", "pf", Forward},
	{"GET", "api/v1 r0 v3 unstable", "admin/whois/{user}", "", Forward},
	{"GET PUT", vV1, "admin/{action}/{user}", "", Forward},

	// Devices and keys.
	{"GET", vR0, "devices", "", Forward},
	{"GET PUT", vR0, "devices/{device}", "", Forward},
	{"DELETE", vR0, "devices/{device}", "", DeleteDevice},
	{"POST", vR0, "delete_devices", "", DeleteDevices},
	{"GET", vR0, "keys/changes", "t", Forward},
	{"POST", vR0, "keys/claim", "t", Forward},
	{"POST", vR0, "keys/query", "t", Forward},
	{"POST", vR0, "keys/upload", "", Forward},
	{"POST", vR0, "keys/upload/{device}", "", Forward},
	{"POST", vR0, "keys/signatures/upload", "", Forward},
	{"POST", "v3 unstable", "keys/device_signing/upload", "", Forward},
	{"GET POST", vR0, "room_keys/version", "", Forward},
	{"GET PUT DELETE", vR0, "room_keys/version/{version}", "", Forward},
	{"GET PUT DELETE", vR0, "room_keys/keys", "", Forward},
	{"GET PUT DELETE", vR0, "room_keys/keys/{room}", "", Forward},
	{"GET PUT DELETE", vR0, "room_keys/keys/{room}/{session}", "", Forward},
	{"GET PUT DELETE", "unstable/org.matrix.msc3814.v1", "dehydrated_device", "", Forward},
	{"GET POST", "unstable/org.matrix.msc3814.v1", "dehydrated_device/{device}/events", "", Forward},
	{"PUT", vR0, "sendToDevice/{type}/{txn}", "t", Forward},

	// The user's data.
	{"GET", vAll, "profile/{user}", "tr", Forward},
	{"GET", vAll, "profile/{user}/{field}", "tr", Forward},
	{"PUT DELETE", vAll, "profile/{user}/{field}", "", Forward},
	{"GET", vAll, "pushrules/", "t", Forward},
	{"GET", vAll, "pushrules/{scope}/", "t", Forward},
	{"GET", vAll, "pushrules/{scope}/{kind}/", "t", Forward},
	{"GET", vAll, "pushrules/{scope}/{kind}/{rule}", "t", Forward},
	{"PUT DELETE", vAll, "pushrules/{scope}/{kind}/{rule}", "", Forward},
	{"GET", vAll, "pushrules/{scope}/{kind}/{rule}/{attribute}", "t", Forward},
	{"PUT", vAll, "pushrules/{scope}/{kind}/{rule}/{attribute}", "", Forward},
	{"GET", vAll, "pushers", "", Forward},
	{"POST", vAll, "pushers/set", "", Forward},
	{"GET", vR0, "user/{user}/account_data/{type}", "t", Forward},
	{"PUT", vR0, "user/{user}/account_data/{type}", "", Forward},
	{"DELETE", "unstable/org.matrix.msc3391", "user/{user}/account_data/{type}", "", Forward},
	{"GET", vR0, "user/{user}/rooms/{room}/account_data/{type}", "t", Forward},
	{"PUT", vR0, "user/{user}/rooms/{room}/account_data/{type}", "", Forward},
	{"GET", vR0, "user/{user}/rooms/{room}/tags", "t", Forward},
	{"PUT DELETE", vR0, "user/{user}/rooms/{room}/tags/{tag}", "", Forward},
	{"POST", vR0, "user/{user}/filter", "t", Forward},
	{"GET", vR0, "user/{user}/filter/{filter}", "t", Forward},
	{"GET", vAll, "presence/{user}/status", "tr", Forward},
	{"PUT", vAll, "presence/{user}/status", "t", Forward},

	// Sync. None of these is read-only: they remove messages from the device.
	{"GET", "r0 v1 v3 unstable", "sync", "tl", Forward},
	{"POST", "unstable/org.matrix.simplified_msc3575 unstable/org.matrix.msc3575 v4", "sync", "tl", Forward},
	{"GET", "api/v1 r0 v1 v3 unstable", "events", "tl", Forward},
	{"GET", vAll, "events/{event}", "t", Forward},
	{"GET", vAll, "initialSync", "t", Forward},
	{"GET", vR0, "notifications", "tr", Forward},

	// Rooms.
	{"GET", vAll, "joined_rooms", "tr", Forward},
	{"GET", vAll, "publicRooms", "tr", Forward},
	{"POST", vAll, "publicRooms", "t", Forward},
	{"POST", vAll, "createRoom", "tx", Forward},
	{"POST", vAll, "join/{target}", "tx", Forward},
	{"POST", vR0, "knock/{target}", "t", Forward},
	{"GET", vAll, "directory/room/{alias}", "trp", Forward},
	{"PUT DELETE", vAll, "directory/room/{alias}", "t", Forward},
	{"GET", vAll, "directory/list/room/{room}", "trp", Forward},
	{"PUT", vAll, "directory/list/room/{room}", "t", Forward},
	{"PUT DELETE", vAll, "directory/list/appservice/{network}/{room}", "", Forward},
	{"GET", "v1", "room_summary/{target}", "tr", Forward},
	{"GET", "unstable/im.nheko.summary", "summary/{target}", "tr", Forward},
	{"GET", "unstable/im.nheko.summary", "rooms/{target}/summary", "tr", Forward},
	{"GET", vAll, "rooms/{room}/members", "trm", Forward},
	{"GET", vAll, "rooms/{room}/joined_members", "trm", Forward},
	{"GET", vAll, "rooms/{room}/messages", "trm", Forward},
	{"GET", vAll, "rooms/{room}/initialSync", "tr", Forward},
	{"GET", "r0 v3 unstable/org.matrix.msc2432", "rooms/{room}/aliases", "trm", Forward},
	{"GET", vAll, "rooms/{room}/event/{event}", "trme", Forward},
	{"GET", vAll, "rooms/{room}/context/{event}", "trme", Forward},
	{"GET", vV1, "rooms/{room}/relations/{event}", "trme", Forward},
	{"GET", vV1, "rooms/{room}/relations/{event}/{relation}", "trme", Forward},
	{"GET", vV1, "rooms/{room}/relations/{event}/{relation}/{type}", "trme", Forward},
	{"GET", "v1 unstable/org.matrix.msc3856", "rooms/{room}/threads", "trme", Forward},
	{"GET", "v1 unstable/org.matrix.msc3030", "rooms/{room}/timestamp_to_event", "trm", Forward},
	{"GET", "v1 unstable/org.matrix.msc2946", "rooms/{room}/hierarchy", "tr", Forward},
	{"GET", vAll, "rooms/{room}/state", "trm", Forward},
	{"GET", vAll, "rooms/{room}/state/{type}", "trm", Forward},
	{"GET", vAll, "rooms/{room}/state/{type}/", "trm", Forward},
	{"GET", vAll, "rooms/{room}/state/{type}/{key}", "trm", Forward},
	{"PUT", vAll, "rooms/{room}/state/{type}", "tm", Forward},
	{"PUT", vAll, "rooms/{room}/state/{type}/", "tm", Forward},
	{"PUT", vAll, "rooms/{room}/state/{type}/{key}", "tm", Forward},
	{"POST", vAll, "rooms/{room}/send/{type}", "tmx", Forward},
	{"POST", vAll, "rooms/{room}/redact/{event}", "tmx", Forward},
	{"POST", vAll, "rooms/{room}/join", "tmx", Forward},
	{"POST", vAll, "rooms/{room}/invite", "tmx", Forward},
	{"POST", vAll, "rooms/{room}/leave", "tmx", Forward},
	{"POST", vAll, "rooms/{room}/kick", "tmx", Forward},
	{"POST", vAll, "rooms/{room}/ban", "tmx", Forward},
	{"POST", vAll, "rooms/{room}/unban", "tmx", Forward},
	{"POST", vAll, "rooms/{room}/forget", "tmx", Forward},
	{"PUT", vAll, "rooms/{room}/typing/{user}", "tm", Forward},
	{"POST", vR0, "rooms/{room}/receipt/{type}/{event}", "tm", Forward},
	{"POST", vR0, "rooms/{room}/read_markers", "tm", Forward},
	{"POST", vR0, "rooms/{room}/report/{event}", "tm", Forward},
	{"POST", vR0, "rooms/{room}/report", "tm", Forward},
	{"POST", vR0, "users/{user}/report", "t", Forward},
	{"POST", vR0, "rooms/{room}/upgrade", "t", Forward},
	{"GET", vV1, "mutual_rooms", "tr", Forward},
	{"POST", vAll, "search", "t", Forward},
	{"POST", vR0, "user_directory/search", "t", Forward},
	{"GET PUT DELETE", "unstable/io.element.msc4306", "rooms/{room}/thread/{event}/subscription", "", Forward},
	{"GET", "unstable/io.element.msc4308", "thread_subscriptions", "", Forward},
	{"GET", "unstable/org.matrix.msc4140", "delayed_events", "", Forward},
	{"GET POST", "unstable/org.matrix.msc4140", "delayed_events/{delay}", "", Forward},
	{"POST", "unstable/org.matrix.msc4140", "delayed_events/{delay}/{action}", "", Forward},

	// The homeserver.
	{"GET", vR0, "capabilities", "tr", Forward},
	{"GET", vAll, "voip/turnServer", "tr", Forward},
	{"GET", vR0, "thirdparty/protocols", "tr", Forward},
	{"GET", vR0, "thirdparty/protocol/{protocol}", "tr", Forward},
	{"GET", vR0, "thirdparty/location", "tr", Forward},
	{"GET", vR0, "thirdparty/location/{protocol}", "tr", Forward},
	{"GET", vR0, "thirdparty/user", "tr", Forward},
	{"GET", vR0, "thirdparty/user/{protocol}", "tr", Forward},
	{"POST", vV1, "appservice/{appservice}/ping", "", Forward},
	{"GET", "v1 unstable/org.matrix.msc3916", "media/download/{server}/{media}", "trm", Forward},
	{"GET", "v1 unstable/org.matrix.msc3916", "media/download/{server}/{media}/{name}", "trm", Forward},
	{"GET", "v1 unstable/org.matrix.msc3916", "media/thumbnail/{server}/{media}", "trm", Forward},
	{"GET", "v1 unstable/org.matrix.msc3916", "media/preview_url", "tr", Forward},
	{"GET", "v1 unstable/org.matrix.msc3916", "media/config", "trm", Forward},
}

// mediaRows are below /_matrix/media and a version.
var mediaRows = []row{
	{"GET", vMedia, "download/{server}/{media}", "trm", Forward},
	{"GET", vMedia, "download/{server}/{media}/{name}", "trm", Forward},
	{"GET", vMedia, "thumbnail/{server}/{media}", "trm", Forward},
	{"GET", vMedia, "preview_url", "tr", Forward},
	{"GET", vMedia, "config", "trm", Forward},
	{"POST", vMedia, "upload", "tu", Forward},
	{"POST", "v1 unstable", "create", "t", Forward},
	{"PUT", vMedia, "upload/{server}/{media}", "tu", Forward},
}

// otherRows have whole paths. A pattern that ends in ** covers all paths below; a row
// without methods covers every method.
var otherRows = []row{
	{"GET", "", "/_matrix/client/versions", "trm", Versions},
	{"GET", "", "/.well-known/matrix/client", "p", WellKnown},
	{"GET", "", "/.well-known/matrix/{file}", "p", Forward},
	{"GET", "", "/_synapse/admin/v1/register", "p", Forward},
	{"POST", "", "/_synapse/admin/v1/register", "p", AdminRegister},
	{"POST", "", "/_synapse/admin/v1/users/{user}/login", "", AdminLogin},
	// The page on which browsers log in for an application.
	{"GET", "", "/_matrix/static/**", "p", Forward},

	// The tokens are those of other servers, of identity servers, of application
	// services, of an authentication service, and for unsubscribing from mail.
	{"", "", "/_matrix/federation/**", "", Opaque},
	{"", "", "/_matrix/key/**", "", Opaque},
	{"", "", "/_matrix/app/**", "", Opaque},
	{"", "", "/_matrix/identity/**", "", Opaque},
	{"", "", "/_synapse/mas/**", "", Opaque},
	{"", "", "/_synapse/client/unsubscribe", "f", Opaque},
	{"GET", "", "/_matrix/client/unstable/pushers/remove", "", Opaque},
}

// Routes returns all routes of the table, in its order.
func Routes() []*Route { return routes }

var (
	routes = makeRoutes()
	table  = makeTable(routes)
)

func makeRoutes() (all []*Route) {
	expand := func(r row, prefix string) {
		for version := range strings.SplitSeq(r.versions, " ") {
			for method := range strings.SplitSeq(r.methods, " ") {
				all = append(all, r.make(method, prefix+version+"/"+r.pattern))
			}
		}
	}
	const client, media = "/_matrix/client/", "/_matrix/media/"
	for _, r := range clientRows {
		expand(r, client)
		if strings.Contains(r.flags, "x") {
			r.methods, r.pattern = http.MethodPut, r.pattern+"/{txn}"
			expand(r, client)
		}
	}
	for _, r := range mediaRows {
		expand(r, media)
	}
	for _, r := range otherRows {
		all = append(all, r.make(r.methods, r.pattern))
	}
	return all
}

func (r *row) make(method, pattern string) *Route {
	route := &Route{Method: method, Pattern: pattern, Effect: r.effect}
	for _, flag := range r.flags {
		switch flag {
		case 't':
			route.Narrow |= Limited
		case 'r':
			route.Narrow |= ReadOnly
		case 'm':
			route.Narrow |= InRoom
		case 'e':
			route.Events = true
		case 'p':
			route.Public = true
		case 'l':
			route.Poll = true
		case 'f':
			route.Body = BodyForm
		case 'u':
			route.Body = BodyAny
		}
	}
	for segment := range strings.SplitSeq(pattern, "/") {
		if name, ok := identifier(segment); ok {
			route.names = append(route.names, name)
		}
	}
	if strings.HasSuffix(pattern, "**") {
		route.Body = BodyAny
	}
	return route
}

// identifier returns the name of an identifier in a pattern. It reports false for a
// fixed segment.
func identifier(segment string) (name string, ok bool) {
	name, ok = strings.CutPrefix(segment, "{")
	return strings.TrimSuffix(name, "}"), ok
}

func makeTable(routes []*Route) *node {
	root := new(node)
	for _, r := range routes {
		if len(r.names) > maxIDs {
			panic(fmt.Sprintf("matrix: too many identifiers in %s", r.Pattern))
		}
		n := root
		for segment := range strings.SplitSeq(r.Pattern[1:], "/") {
			n = n.child(segment)
		}
		if n.route(r.Method) != nil {
			panic(fmt.Sprintf("matrix: %s %s is in the table twice", r.Method, r.Pattern))
		}
		n.routes = append(n.routes, r)
	}
	return root
}

// child returns the child of a segment of a pattern, and makes it if there is none.
func (n *node) child(segment string) *node {
	next := &n.id
	if segment == "**" {
		next = &n.below
	} else if _, ok := identifier(segment); !ok {
		if n.fixed == nil {
			n.fixed = make(map[string]*node)
		}
		if n.fixed[segment] == nil {
			n.fixed[segment] = new(node)
		}
		return n.fixed[segment]
	}
	if *next == nil {
		*next = new(node)
	}
	return *next
}
