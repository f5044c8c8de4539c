package matrix

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// pair is a request and its two answers.
type pair struct {
	kind, method, path string
	how                carrying
	direct, through    answer
}

// difference is a kind of intended difference, with a function that recognizes one,
// given as "name: direct | through".
type difference struct {
	name, reason string
	is           func(x pair, d string) bool
}

// acceptedDifferences are the intended differences of the gateway, and those between
// any two homeservers.
var acceptedDifferences = []difference{
	{"text", "the error that comes with an errcode is a text for people", func(x pair, d string) bool {
		return about(d, "body.error:") && x.through.body.text("errcode") != ""
	}},
	{"header", "answers of the gateway's own have the header of Synapse's answers to clients", func(x pair, d string) bool {
		outside := x.kind == "dendrite" || !strings.HasPrefix(x.path, "/_matrix/") || slices.Contains(pages, x.path)
		return x.own() && !about(d, "status", "body") && (outside || !about(d, "Access-Control-", "Content-Type:", "Cache-Control:"))
	}},
	{"TRACE", "the answer to TRACE is the request, with the homeserver's token", func(x pair, d string) bool {
		return x.method == http.MethodTrace && x.through.status == http.StatusMethodNotAllowed && about(d, "status", "body")
	}},
	{"damaged token", "a token that the gateway made and that was changed is refused before the homeserver sees the request; softly, since a " +
		"hard refusal has clients drop their keys", func(x pair, d string) bool {
		return x.changed() && x.through.status == http.StatusUnauthorized && x.direct.status >= http.StatusBadRequest && about(d, "status", "body")
	}},
	{"optional token", "the homeserver looks at a token here only if its settings say so, and the gateway does not know them", func(x pair, d string) bool {
		return x.changed() && x.through.status == http.StatusUnauthorized && about(d, "status", "body") && optional.MatchString(x.path)
	}},
	{"page", "a page is not part of the API: its text may have the request target, and the gateway refuses a damaged token there", func(x pair, d string) bool {
		return slices.Contains(pages, x.path) && about(d, "status", "body") && (x.changed() || x.how.inQuery)
	}},
	{"versions", "Dendrite does not look at the token; the gateway does, as Synapse, which has versions for some users", func(x pair, _ string) bool {
		return x.kind == "dendrite" && x.path == pathVersions && x.changed()
	}},
	{"v1.3", "refresh tokens came with v1.3", func(x pair, d string) bool {
		return x.path == pathVersions && about(d, "body.versions:")
	}},
	{"method", "Dendrite answers 404 for a method that a route lacks; the gateway refuses such methods where an answer could hold a token",
		func(x pair, d string) bool {
			return x.kind == "dendrite" && x.own() && x.through.status == http.StatusMethodNotAllowed && about(d, "status")
		}},
	{"refresh", "the gateway has refresh tokens where the homeserver has none", func(x pair, d string) bool {
		return x.kind == "dendrite" && x.method == http.MethodPost && strings.HasSuffix(x.path, "/refresh") && about(d, "status", "body")
	}},
	{"registration", "a client that still sends an old token can register", func(x pair, d string) bool {
		return x.method == http.MethodPost && strings.HasSuffix(x.path, "/register") && x.direct.status == http.StatusBadRequest && about(d, "status", "body")
	}},
	{"OPTIONS", "a request for the options of a path goes on without the token; Dendrite looks for one with media", func(x pair, d string) bool {
		return x.method == http.MethodOptions && (about(d, "body.errcode:") || x.kind == "dendrite" && strings.Contains(x.path, "/v1/media/"))
	}},
	{"list", "the homeserver fills the list in the background, or it holds users that registered on one side", func(x pair, d string) bool {
		return lists.MatchString(x.path) && about(d, "body")
	}},
}

const pathVersions = "/_matrix/client/versions"

// pages are paths outside of the API.
var pages = []string{"/", "/health", "/_matrix/static/", "/.well-known/matrix/server"}

// optional matches paths of routes that may need no token.
var optional = regexp.MustCompile(`/profile/|/publicRooms$|^/_matrix/media/[^/]+/(download|thumbnail)/|/admin/v1/server_version$`)

// lists matches paths of such lists.
var lists = regexp.MustCompile(`/user_directory/search$|/statistics/|/background_updates/|/scheduled_tasks$|/admin/v[23]/users$`)

// changed reports whether the token was changed.
func (x pair) changed() bool { return strings.HasPrefix(x.how.name, "changed") }

// own reports whether the second answer is the gateway's own, by its header.
func (x pair) own() bool {
	h := x.through.header
	return h.Get("Access-Control-Expose-Headers") != "" && !strings.HasPrefix(h.Get("Server"), "Synapse/")
}

// about reports whether a difference is in one of some parts of an answer. A part
// is named by the beginning of its name.
func about(d string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.HasPrefix(d, part) })
}

// accepted returns the name of the kind of a difference, empty if it is not accepted.
func (x pair) accepted(d string) string {
	for _, a := range acceptedDifferences {
		if a.is(x, d) {
			return a.name
		}
	}
	return ""
}
