package matrix

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The routes that Synapse registers, by method and pattern. An interoperability test
// compares the list with a running Synapse.
const synapse = "../../../cmd/discharger/interop/matrix/testdata/routes.txt"

var (
	alternatives = regexp.MustCompile(`\(([^?()]*\|[^()]*)\)`)
	named        = regexp.MustCompile(`\(\?P<(\w+)>[^()]*\)`)
	actions      = regexp.MustCompile(`\(\?P<\w+>([\w|]+)\)`)
	optional     = regexp.MustCompile(`\(/[^()]*\)\?`)
)

// paths returns paths that match a pattern of Synapse.
func paths(pattern string) []string {
	pattern = strings.TrimSuffix(strings.TrimPrefix(pattern, "^"), "$")
	pattern = strings.ReplaceAll(pattern, "(?P<path>pushrules/.*)", "pushrules/global/content/x")
	pattern = actions.ReplaceAllString(pattern, "($1|$1)")
	pattern = strings.ReplaceAll(named.ReplaceAllString(pattern, "x"), `\.`, ".")
	all := []string{pattern}
	for _, expand := range []*regexp.Regexp{optional, optional, alternatives} {
		var next []string
		for _, p := range all {
			at := expand.FindStringIndex(p)
			if at == nil {
				next = append(next, p)
				continue
			}
			group := strings.Trim(p[at[0]:at[1]], "()?")
			choices := strings.Split(group, "|")
			if expand == optional {
				choices = []string{"", group}
			}
			for _, choice := range choices {
				next = append(next, p[:at[0]]+choice+p[at[1]:])
			}
		}
		all = next
	}
	if alternatives.MatchString(strings.Join(all, " ")) {
		var next []string
		for _, p := range all {
			next = append(next, paths(p)...)
		}
		return next
	}
	return all
}

// The table has every route of Synapse.
func TestTableHoldsSynapse(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile(synapse)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(list)) {
		method, pattern, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			t.Fatalf("line %q", line)
		}
		if strings.Contains(pattern, "/_synapse/") {
			continue // most are not in the table
		}
		for _, path := range paths(pattern) {
			n++
			target, err := ParseTarget(path)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if m := target.Match(method); !m.Listed() || m.Refused != 0 {
				t.Errorf("%s %s is not in the table (%d)", method, path, m.Refused)
			}
		}
	}
	if n < 600 {
		t.Errorf("%d paths", n)
	}
}

// A read-only token can use routes with GET only, a narrowed token no route of the
// account, and a token for a room only routes that name the room.
func TestTableIsSound(t *testing.T) {
	t.Parallel()
	account := regexp.MustCompile(`/(login|logout|register|refresh|account/(3pid|password|deactivate)|devices|delete_devices|room_keys|pushers|openid|` +
		`keys/(upload|signatures|device_signing)|dehydrated_device)|^/_synapse|^/_dendrite`)
	changes := regexp.MustCompile(`/(profile|account_data|pushrules|tags|keys/upload|devices)(/|$)`)
	for _, r := range Routes() {
		switch {
		case r.Narrow.Has(ReadOnly) && r.Method != http.MethodGet,
			r.Narrow != 0 && !r.Narrow.Has(Limited),
			r.Narrow != 0 && account.MatchString(r.Pattern),
			r.Narrow != 0 && r.Method != http.MethodGet && changes.MatchString(r.Pattern),
			r.Narrow.Has(InRoom) && r.Method != http.MethodGet && !slices.Contains(r.names, "room"),
			r.Effect != Forward && r.Narrow != 0 && r.Effect != Versions,
			r.Events && !slices.Contains(r.names, "room"):
			t.Errorf("%s %s: %+v", r.Method, r.Pattern, r)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, target string
		effect         Effect
		refused        int
	}{
		{"POST", "/_matrix/client/v3/login", Login, 0},
		{"POST", "/_matrix/client/v3/login?x=login", Login, 0},
		{"GET", "/_matrix/client/v3/login", Forward, 0},
		{"HEAD", "/_matrix/client/v3/login", Forward, 0},
		{"OPTIONS", "/_matrix/client/v3/login", Forward, 0},
		{"PUT", "/_matrix/client/v3/login", Forward, 405},
		{"POST", "/_matrix/client/unstable/org.matrix.msc2918/refresh", Refresh, 0},
		{"POST", "/_matrix/client/v3/logout", Logout, 0},
		{"GET", "/_matrix/client/v3/logout", Forward, 405},
		{"DELETE", "/_matrix/client/v3/devices/login", DeleteDevice, 0},
		{"DELETE", "/_matrix/client/v3/devices/a%2Fb", DeleteDevice, 0},
		{"PUT", "/_matrix/client/v3/devices/refresh", Forward, 0},
		{"PATCH", "/_matrix/client/v3/devices/refresh", Forward, 0},
		{"GET", "/_matrix/client/v3/rooms/!a:b/state/x/login", Forward, 0},
		{"GET", "/_matrix/client/v3/rooms/!a:b/state/x/a%2Flogin", Forward, 0},
		{"GET", "/_matrix/static/client/login/", Forward, 0},
		{"POST", "/_matrix/static/client/login", Forward, 0},
		{"PUT", "/_matrix/federation/v1/send/login", Opaque, 0},
		{"POST", "/_synapse/mas/logout", Opaque, 0},
		{"POST", "/_synapse/admin/v1/users/@a:b/login", AdminLogin, 0},
		{"POST", "/_synapse/admin/v1/users/%40a%3Ab/login", AdminLogin, 0},
		{"POST", "/_synapse/admin/v1/users/@a%2Fb/login", AdminLogin, 0},
		{"POST", "/_synapse/admin/v1/users//login", Forward, 404},
		{"GET", "/_matrix/client/versions", Versions, 0},
		{"GET", "/_matrix/client/versions/", Forward, 0},
		{"GET", "/.well-known/matrix/client", WellKnown, 0},
		{"GET", "/_matrix/client/v3/profile/@a:b/login", Forward, 0},
		{"GET", "/anything/else", Forward, 0},
		{"GET", "/anything/%", Forward, 400},
		{"POST", "/_matrix/client/v3/account%2Fpassword", Forward, 404},
		{"POST", "/_matrix/client/v3/Delete_Devices", Forward, 404},
		{"POST", "/_matrix/client/v3/delete_devices;x", Forward, 404},
		{"POST", "/_matrix/client/v3//delete_devices", Forward, 404},
		{"POST", "/_matrix/client/v3/logout/all%3fx", Forward, 404},
		{"POST", "/_matrix/client/v3/login%23x", Forward, 404},
		{"POST", "/_matrix/client/v3/login%00x", Forward, 404},
		{"POST", "/_matrix/client/v3/login%20", Forward, 404},
		{"POST", "/_matrix/client/v3/login;a=b", Forward, 404},
		{"POST", "/_matrix/client/v3/%2523/x/%25252e", Forward, 400},
		{"POST", "/_matrix/client/v3/x%5clogin", Forward, 404},
		{"POST", "/foo/..;/login", Forward, 400},
		{"POST", "foo:_matrix/client/v3/login", Forward, 400},
		{"POST", "", Forward, 400},
		{"OPTIONS", "*", Forward, 400},
	} {
		t.Run(c.method+" "+c.target, func(t *testing.T) {
			t.Parallel()
			target, err := ParseTarget(c.target)
			if err != nil {
				if c.refused != http.StatusBadRequest {
					t.Error(err)
				}
				return
			}
			if m := target.Match(c.method); m.Route.Effect != c.effect || m.Refused != c.refused {
				t.Errorf("effect %d, refused %d", m.Route.Effect, m.Refused)
			}
		})
	}
}

func TestMatchIDs(t *testing.T) {
	t.Parallel()
	target, err := ParseTarget("/_matrix/client/v3/rooms/%21a%3Ab/state/m.x/a%2Fb%2520")
	if err != nil {
		t.Fatal(err)
	}
	m := target.Match("GET")
	if m.ID("room") != "!a:b" || m.ID("type") != "m.x" || m.ID("key") != "a/b%20" || m.ID("user") != "" || m.Has("user") || !m.Has("key") {
		t.Errorf("%q %q %q", m.ID("room"), m.ID("type"), m.ID("key"))
	}
}

func TestPolls(t *testing.T) {
	t.Parallel()
	for request, want := range map[string]bool{
		"GET /_matrix/client/v3/sync": true, "GET /_matrix/client/r0/events": true, "POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync": true,
		"POST /_matrix/client/v3/login": false, "GET /_matrix/federation/v1/sync": false, "GET /_matrix/client/v3/sync/": false, "GET /sync": false,
	} {
		method, path, _ := strings.Cut(request, " ")
		target, err := ParseTarget(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(request, func(t *testing.T) {
			if m := target.Match(method); m.Route.Poll != want {
				t.Errorf("%t, want %t", m.Route.Poll, want)
			}
		})
	}
}

// FuzzTarget checks that no target is passed on which a proxy or a homeserver could
// read as a route that issues tokens.
func FuzzTarget(f *testing.F) {
	for _, target := range []string{
		"/_matrix/client/v3/login", "/_matrix/client/v3/%6Cogin", "/_matrix/client/v3/rooms/x/state/y/login", "/_matrix/client/x/../v3/login",
		"/_synapse/admin/v1/users/a/login", "/_matrix/federation/v1/x", "//_matrix/client/v3/login", "/_matrix/client/v3/devices/%2e%2e/login",
		"/_matrix/client/v3/login#x", "/_matrix/client/v3;/login;x", "/_matrix/client/%2576%2533/login",
	} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, text string) {
		target, err := ParseTarget(text)
		if err != nil {
			return
		}
		m := target.Match("POST")
		if m.Refused != 0 || m.Route.Effect.HandsOut() {
			return
		}
		for _, reading := range lax(target.Path) {
			for _, version := range []string{"v3", "r0", "unstable", "api/v1"} {
				for _, name := range []string{"login", "register", "refresh"} {
					if reading == "_matrix/client/"+version+"/"+name {
						t.Fatalf("%q is read as %q", text, reading)
					}
				}
			}
		}
	})
}

// lax returns the readings of a path by servers that decode it, resolve its dot
// segments, cut it and fold its case.
func lax(path string) (all []string) {
	for range 4 {
		for _, cut := range []string{path, cutAny(path, "#?"), cutAny(path, ";")} {
			var resolved []string
			for _, s := range strings.Split(strings.ToLower(strings.ReplaceAll(cut, `\`, "/")), "/") {
				switch s {
				case "", ".":
				case "..":
					resolved = resolved[:max(len(resolved)-1, 0)]
				default:
					resolved = append(resolved, s)
				}
			}
			all = append(all, strings.Join(resolved, "/"))
		}
		path = decode(path)
	}
	return all
}

func BenchmarkMatch(b *testing.B) {
	for _, path := range []string{"/_matrix/client/v3/sync", "/_matrix/client/v3/rooms/%21abc%3Ahs/send/m.room.message/m1"} {
		b.Run(path, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				target, err := ParseTarget(path)
				if err != nil {
					b.Fatal(err)
				}
				if m := target.Match("PUT"); m.Refused != 0 {
					b.Fatal(m.Refused)
				}
			}
		})
	}
}
