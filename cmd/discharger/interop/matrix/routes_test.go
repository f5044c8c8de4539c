package matrix

import (
	"bufio"
	"encoding/json"
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
)

var updateRoutes = flag.Bool("update", false, "write the routes that Synapse prints into testdata/routes.txt")

// routesFile lists the routes of Synapse, one in a line: a method and a pattern of
// paths.
const routesFile = "testdata/routes.txt"

// pathPattern is the pattern of the paths of one or more routes.
type pathPattern struct {
	text    string
	methods []string
}

// knownPatterns returns the patterns of [routesFile], and those of paths that
// Synapse or Dendrite serve in another way.
func knownPatterns(t *testing.T) []pathPattern {
	t.Helper()
	content, err := os.ReadFile(routesFile)
	if err != nil {
		t.Fatal(err)
	}
	all := groupRoutes(t, strings.Split(strings.TrimSpace(string(content)), "\n"))
	return append(all, groupRoutes(t, otherRoutes)...)
}

// otherRoutes are routes that Synapse does not register as patterns, and those of
// Dendrite alone.
var otherRoutes = []string{
	"GET ^/$",
	"GET ^/health$",
	"GET ^/.well-known/matrix/client$",
	"GET ^/.well-known/matrix/server$",
	"GET ^/_matrix/static/$",
	"GET ^/_matrix/key/v2/server$",
	"GET ^/_matrix/federation/v1/version$",
	"GET ^/_matrix/client/(r0|v3)/login/sso/redirect$",
	"GET ^/_matrix/client/v1/auth_metadata$",
	"POST ^/_matrix/client/v3/no/such/route$",
	"GET ^/_synapse/client/pick_username/check$",
	"GET ^/_synapse/client/v1/config/federation_whitelist$",
	"POST ^/_synapse/client/new_user_consent$",
	"POST ^/_dendrite/admin/evacuateRoom/(?P<room_id>[^/]*)$",
	"POST ^/_dendrite/admin/evacuateUser/(?P<user_id>[^/]*)$",
	"POST ^/_dendrite/admin/resetPassword/(?P<user_id>[^/]*)$",
	"GET ^/_dendrite/admin/registrationTokens$",
	"POST ^/_dendrite/admin/purgeRoom/(?P<room_id>[^/]*)$",
}

// groupRoutes collects the methods of each pattern.
func groupRoutes(t *testing.T, lines []string) (all []pathPattern) {
	t.Helper()
	for _, line := range lines {
		method, text, ok := strings.Cut(line, " ")
		if !ok {
			t.Fatalf("%q is not a method and a pattern", line)
		}
		i := slices.IndexFunc(all, func(p pathPattern) bool { return p.text == text })
		if i < 0 {
			i, all = len(all), append(all, pathPattern{text: text})
		}
		all[i].methods = append(all[i].methods, method)
	}
	return all
}

// TestRoutes compares the routes that Synapse registers with routesFile.
func TestRoutes(t *testing.T) {
	h := startSynapse(t, &kit{python: findSynapse(t)})
	file, err := os.Open(filepath.Join(h.dir, "routes.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var got []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var route [2]string
		if err := json.Unmarshal(lines.Bytes(), &route); err != nil {
			t.Fatal(err)
		}
		got = append(got, route[0]+" "+route[1])
	}
	slices.SortFunc(got, byPattern)
	text := strings.Join(slices.Compact(got), "\n") + "\n"
	if *updateRoutes {
		if err := os.WriteFile(routesFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(routesFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text {
		t.Errorf("Synapse has other routes than %s; go test -run TestRoutes -update writes them", routesFile)
	}
}

// byPattern orders lines of [routesFile].
func byPattern(a, b string) int {
	methodA, patternA, _ := strings.Cut(a, " ")
	methodB, patternB, _ := strings.Cut(b, " ")
	if patternA != patternB {
		return strings.Compare(patternA, patternB)
	}
	return strings.Compare(methodA, methodB)
}

// path returns a path that the pattern matches. The named groups are filled with
// values; turn selects among alternatives, such as the version of the API.
func (p pathPattern) path(t *testing.T, values map[string]string, turn int) string {
	t.Helper()
	re, err := syntax.Parse(p.text, syntax.Perl)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fill(t, &b, re, values, turn)
	if !regexp.MustCompile(p.text).MatchString(b.String()) {
		t.Fatalf("%s does not match %s", p.text, b.String())
	}
	return b.String()
}

func fill(t *testing.T, b *strings.Builder, re *syntax.Regexp, values map[string]string, turn int) {
	t.Helper()
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpAnyCharNotNL: // a dot that should have been escaped
		b.WriteByte('.')
	case syntax.OpCharClass: // the parsed form of v1|v3
		b.WriteRune(re.Rune[2*(turn%(len(re.Rune)/2))])
	case syntax.OpAlternate:
		fill(t, b, re.Sub[turn%len(re.Sub)], values, turn)
	case syntax.OpConcat, syntax.OpQuest:
		for _, sub := range re.Sub {
			fill(t, b, sub, values, turn)
		}
	case syntax.OpCapture:
		value, known := values[re.Name]
		switch {
		case re.Name == "path": // of push rules: several segments
			b.WriteString(value)
		case known:
			b.WriteString(url.PathEscape(value))
		case re.Name == "field_name" && re.Sub[0].Op == syntax.OpStar:
			b.WriteString("displayname")
		case re.Name == "" || re.Name == "membership_action" || re.Name == "field_name":
			fill(t, b, re.Sub[0], values, turn)
		default:
			t.Fatalf("there is no value for %s", re.Name)
		}
	case syntax.OpBeginText, syntax.OpEndText, syntax.OpBeginLine, syntax.OpEndLine:
	default:
		t.Fatalf("there is no example of %s", re)
	}
}
