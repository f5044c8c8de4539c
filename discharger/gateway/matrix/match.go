package matrix

import (
	"net/http"
	"slices"
	"strings"
)

// Match is the result of looking up a request in the table.
type Match struct {
	// Route is the route of the request. One that is not in the table has no effect,
	// no narrowed tokens and any body.
	Route *Route
	// Refused is the status of the refusal, 404 or 405; 0: the request is passed on.
	Refused int

	ids    [maxIDs]string // the identifiers, percent-encoded
	others []*Route       // other readings of the path, and other methods of it
}

// maxIDs bounds the identifiers in a pattern.
const maxIDs = 4

// extension is the route of requests that are not in the table.
var extension = &Route{Body: BodyAny}

// Listed reports whether the route is in the table.
func (m *Match) Listed() bool { return m.Route != extension }

// ID returns the identifier of a name in the path, decoded; "": there is none.
func (m *Match) ID(name string) string {
	if i := slices.Index(m.Route.names, name); i >= 0 {
		return decode(m.ids[i])
	}
	return ""
}

// Has reports whether the path has an identifier of a name.
func (m *Match) Has(name string) bool { return slices.Contains(m.Route.names, name) }

// Allows reports whether a token narrowed by all conditions of n may be used for every
// reading of the request.
func (m *Match) Allows(n Narrowing) bool {
	return m.Route.Narrow.Has(n) && !slices.ContainsFunc(m.others, func(o *Route) bool { return !o.Narrow.Has(n) })
}

// Match finds the route of a request.
func (t Target) Match(method string) Match {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var m Match
	n := table.find(t.Path, m.ids[:0])
	if n != nil {
		m.Route = n.route(method)
	}
	if m.Route == nil {
		m.Route = extension
	}
	switch {
	case m.Listed():
		if t.structured {
			m.others = t.readings(method, m.Route)
		}
	case n != nil:
		m.Refused = n.refusal(method)
	case endsGuarded(t.Path):
		m.Refused = http.StatusNotFound
	default:
		m.others = t.readings(method, extension)
	}
	for _, o := range m.others {
		if o.Effect.guarded() && o.Effect != m.Route.Effect {
			m.Refused = http.StatusNotFound
		}
	}
	return m
}

// readings returns the other routes as which a lenient parser could read a path: one
// that decodes it, cuts it or folds its case.
func (t Target) readings(method string, route *Route) (all []*Route) {
	paths, ok := decodings(t.Path)
	if !ok {
		return nil
	}
	for _, p := range paths {
		loose, cut := loosen(p), loosen(cutAny(p, "?#\x00"))
		for _, reading := range [...]string{loose, cut, strings.ToLower(loose), strings.ToLower(cut)} {
			n := table.find(reading, nil)
			if n == nil {
				continue
			}
			r := n.route(method)
			if r == nil {
				r = n.guarded()
			}
			if r != nil && r != route {
				all = append(all, r)
			}
		}
	}
	return all
}

// loosen returns a path without empty segments and parameters, with slashes only.
func loosen(path string) string {
	var b strings.Builder
	for segment := range strings.FieldsFuncSeq(path, isSlash) {
		if s := bare(segment); s != "" {
			b.WriteByte('/')
			b.WriteString(s)
		}
	}
	return b.String()
}

func isSlash(r rune) bool { return r == '/' || r == '\\' }

func cutAny(s, chars string) string {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return s[:i]
	}
	return s
}

// endsGuarded reports whether the last segment of a path, in any decoding, is the name
// of a route that issues or ends tokens.
func endsGuarded(path string) bool {
	if strings.IndexByte(path, '%') < 0 {
		return guardedName(path)
	}
	paths, ok := decodings(path)
	return !ok || slices.ContainsFunc(paths, func(p string) bool { return guardedName(p) || guardedName(cutAny(p, "?#\x00")) })
}

func guardedName(path string) bool {
	for path != "" {
		path = strings.TrimRightFunc(path, func(r rune) bool { return isSlash(r) || isBlank(r) || r == '.' })
		end := strings.LastIndexAny(path, `/\`)
		last := strings.TrimRight(bare(path[end+1:]), ".")
		if last == "" { // parameters only
			path = path[:max(end, 0)]
			continue
		}
		switch strings.ToLower(last) {
		case "login", "register", "refresh", "logout":
			return true
		}
		return false
	}
	return false
}

// node is a node in the tree of patterns.
type node struct {
	fixed  map[string]*node // by segment
	id     *node            // of any segment that is not empty
	below  *node            // of all paths below
	routes []*Route         // the most frequent method first
}

func (n *node) route(method string) *Route {
	for _, r := range n.routes {
		if r.Method == method || r.Method == "" {
			return r
		}
	}
	return nil
}

// guarded returns a guarded route of any method; nil: there is none.
func (n *node) guarded() *Route {
	for _, r := range n.routes {
		if r.Effect.guarded() {
			return r
		}
	}
	return nil
}

// refusal returns the status for a method without a route. It is 0, and the homeserver
// decides, unless an answer of the path could carry a token.
func (n *node) refusal(method string) int {
	if r := n.guarded(); r != nil && r.Effect != DeleteDevice && method != http.MethodOptions {
		return http.StatusMethodNotAllowed
	}
	return 0
}

// find returns the node of a path, and appends the identifiers to ids up to its capacity.
func (n *node) find(path string, ids []string) *node {
	if path == "" {
		if len(n.routes) == 0 {
			return nil
		}
		return n
	}
	segment, rest := path[1:], ""
	if i := strings.IndexByte(segment, '/'); i >= 0 {
		segment, rest = segment[:i], segment[i:]
	}
	if next := n.fixed[segment]; next != nil {
		if found := next.find(rest, ids); found != nil {
			return found
		}
	}
	if n.id != nil && segment != "" {
		next := ids
		if cap(ids) > len(ids) {
			next = append(ids, segment)
		}
		if found := n.id.find(rest, next); found != nil {
			return found
		}
	}
	return n.below
}
