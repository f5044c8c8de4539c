package matrix

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// comparable is an answer without the parts that differ between two homeservers in
// equal states: identifiers, times, tokens.
type comparable struct {
	status int
	header map[string]string
	body   any // as JSON, or text
}

// otherHeaders are headers that are not compared.
var otherHeaders = []string{"Connection", "Content-Length", "Date", "Keep-Alive", "Server", "Transfer-Encoding"}

// otherMembers are members of JSON objects whose values are not compared.
//
// The time and address of the last use of a session are written some seconds later.
var otherMembers = []string{
	"access_token", "age", "average_items_per_ms", "connections", "content_uri", "database_size", "delete_id", "end", "estimated_size",
	"etag", "expires_in_ms", "filter_id", "from", "hashes", "home_server", "last_active_ago", "last_seen_ip", "last_seen_ts",
	"last_seen_user_agent", "login_token", "next_batch", "next_token", "nonce", "pos", "prev_batch", "purge_id", "redact_id",
	"refresh_token", "retry_after_ms", "session", "signatures", "start", "state_group", "to", "token", "total_duration_ms",
	"total_item_count",
}

// randomText matches identifiers that homeservers choose at random.
var randomText = []struct {
	pattern *regexp.Regexp
	name    string
}{
	{regexp.MustCompile(`\$[A-Za-z0-9_-]{43}`), "<event>"},
	{regexp.MustCompile(`![A-Za-z0-9_-]{43}|![A-Za-z0-9]{16,18}:localhost`), "<room>"},
	{regexp.MustCompile(`mxc://localhost/[A-Za-z0-9_-]+`), "<media>"},
	{regexp.MustCompile(`\b[A-Z]{10}\b|\b[A-Za-z0-9_-]{8,11}\b-device`), "<device>"},
	{regexp.MustCompile(`\b[smt][0-9]+([_-][0-9.]+)+(_[A-Za-z0-9_]+)?\b`), "<position>"},
	{regexp.MustCompile(`\b127\.0\.0\.1:[0-9]+`), "<client>"},
	{regexp.MustCompile(`http://127\.53\.[0-9.]+:[0-9]+`), "<site>"},
	{regexp.MustCompile(`\b(session|sid|nonce)=[A-Za-z0-9_-]+`), "<session>"},
}

// comparable returns the compared parts of an answer.
func (s *side) comparable(a answer) comparable {
	c := comparable{status: a.status, header: map[string]string{}}
	replace := strings.NewReplacer(slices.Concat(pairs(s.aliases)...)...)
	text := func(in string) string {
		in = replace.Replace(in)
		for _, r := range randomText {
			in = r.pattern.ReplaceAllLiteralString(in, r.name)
		}
		return in
	}
	for name, values := range a.header {
		if !slices.Contains(otherHeaders, name) {
			c.header[name] = text(strings.Join(values, ", "))
		}
	}
	if err := json.Unmarshal([]byte(a.raw), &c.body); err != nil {
		c.body = text(a.raw)
		return c
	}
	c.body = normal(c.body, text)
	return c
}

func pairs(m map[string]string) (all [][]string) {
	for from, to := range m {
		all = append(all, []string{from, to})
	}
	slices.SortFunc(all, func(a, b []string) int { return cmp.Or(len(b[0])-len(a[0]), strings.Compare(a[0], b[0])) })
	return all
}

// normal returns a JSON value without the parts that are not compared, with arrays
// sorted: their order may be that of random identifiers.
func normal(value any, text func(string) string) any {
	switch v := value.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, member := range v {
			if slices.Contains(otherMembers, name) {
				out[name] = "<any>"
				continue
			}
			out[text(name)] = normal(member, text)
		}
		return out
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = normal(v[i], text)
		}
		slices.SortFunc(all, func(a, b any) int { return strings.Compare(encoded(a), encoded(b)) })
		return all
	case string:
		return text(v)
	case float64:
		if v >= 1e9 {
			return "<time>"
		}
	}
	return value
}

func encoded(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// differences lists the differences between a direct answer and one through the
// gateway, as "name: direct | through".
func differences(direct, through comparable) (all []string) {
	note := func(name string, a, b any) {
		all = append(all, fmt.Sprintf("%s: %s | %s", name, shortened(encoded(a)), shortened(encoded(b))))
	}
	if direct.status != through.status {
		note("status", direct.status, through.status)
	}
	for _, name := range slices.Sorted(maps.Keys(union(direct.header, through.header))) {
		if direct.header[name] != through.header[name] {
			note(name, direct.header[name], through.header[name])
		}
	}
	compareJSON("body", direct.body, through.body, note)
	return all
}

func compareJSON(path string, a, b any, note func(string, any, any)) {
	objectA, okA := a.(map[string]any)
	objectB, okB := b.(map[string]any)
	if !okA || !okB {
		if encoded(a) != encoded(b) {
			note(path, a, b)
		}
		return
	}
	for _, name := range slices.Sorted(maps.Keys(union(objectA, objectB))) {
		valueA, inA := objectA[name]
		valueB, inB := objectB[name]
		switch {
		case !inA:
			note(path+"."+name, "<absent>", valueB)
		case !inB:
			note(path+"."+name, valueA, "<absent>")
		default:
			compareJSON(path+"."+name, valueA, valueB, note)
		}
	}
}

func union[V any](a, b map[string]V) map[string]V {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return all
}

func shortened(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}
