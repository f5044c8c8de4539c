package rules_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
	"unicode"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

// within fails the test unless a decision is valid and narrowed to the grant.
func within(t *testing.T, d policy.Decision, g policy.Grant) {
	t.Helper()
	if !slices.Contains(policy.Effects(), d.Effect) {
		t.Fatalf("invalid decision: %+v", d)
	}
	longest := max(g.MaxTTL, g.TTL)
	if d.TTL < 0 || d.TTL > max(longest, 0) {
		t.Fatalf("ttl %s exceeds the grant %+v", d.TTL, g)
	}
	gives := d.Effect == policy.EffectAllow && g.TTL > 0
	if !gives && (d.TTL != 0 || len(d.Caveats) > 0 || len(d.Labels) > 0 || d.KeepSessions != 0) {
		t.Fatalf("additions without an allow: %+v", d)
	}
	if d.Effect == policy.EffectReauth && !d.SoftLogout || d.KeepSessions < 0 || d.RetryAfter < 0 || d.RetryAfter > 24*time.Hour {
		t.Fatalf("not narrowed: %+v", d)
	}
	for _, c := range d.Caveats {
		if c == "" || strings.ContainsFunc(c, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }) {
			t.Fatalf("invalid caveat %q", c)
		}
	}
}

// FuzzLoad loads arbitrary text as a rule file. The decisions of a valid file are within the
// grant; the error of an invalid file is a list of problems.
func FuzzLoad(f *testing.F) {
	names, err := fs.Glob(rules.Builtin(), "*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(rules.Builtin(), name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add(rule(`session.labels.exists(k, k == user.id) || request.ip in networks.office`))
	f.Add(rule("|\n          user.id in lists.admins && // why\n          now.during(\"Mon-Fri 08:00-18:00\", \"Europe/Berlin\")"))
	f.Add(then(`{effect: allow, ttl: grant.max_ttl, caveats: ["client-ip {request.ip}", "{{x}} y"], labels: {a: "{user.id}"}, keep_sessions: 3}`))
	f.Add(then(`{webhook: w}`) + "webhooks: {w: {url: 'https://x.org/', secret_file: k, allow: [10.0.0.0/8], on_error: deny}}\n")
	f.Add("version: 1\nlists: {a: &a [x]}\npolicies: {p: {otherwise: *a}}")
	f.Fuzz(func(t *testing.T, text string) {
		cfg := rules.Config{FS: fstest.MapFS{"p.yaml": {Data: []byte(text)}}, Files: []string{"p.yaml"}, OnlyFiles: true, Offline: true, SkipTests: true}
		report, err := check.Files(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_ = written(t, report)
		set, err := rules.Load(cfg)
		if (err == nil) != report.OK() {
			t.Fatalf("Check and Load disagree: %v", err)
		}
		if err != nil {
			var problems yamlfile.Problems
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("error without problems: %v", err)
			}
			return
		}
		_ = written(t, check.Tests(set))
		for _, name := range set.Names() {
			in := policy.SampleInput()
			in.Policy = name
			if d, err := policy.Ask(context.Background(), set, in); err == nil {
				within(t, d, in.Grant)
			}
			_ = written(t, set.Explain(context.Background(), in))
		}
	})
}

// FuzzExpression compiles arbitrary text as a condition and as a caveat.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		`session.labels[?"role"].orValue("") == "admin"`, `now - session.created > days(90)`, `request.ip in cidr("10.0.0.0/8")`,
		`session.labels.exists(k, k.startsWith("x") && session.labels[k] != "")`, `cel.bind(x, user.id, x + x).size() > 3`,
		`has(session.expires) ? session.expires > now : user.sessions < 3`, `[1, 2, 3].map(x, x * 2).exists(y, y == 4)`,
		`user.id.matches("^@[a-z]+:")`, `"{" == '}' || {"a": 1}.a == 1`, `user.id.replace("a", "b").split(":").join("-") == ""`, "`x`", `b"\xff" == b"a"`, `1 / 0 == 1u`, `-9223372036854775808`,
		`sameNetwork(session.first_ip, request.ip, -1, 999)`, `timestamp(9999999999999) > now`, `session == session`, `"\u2028".size() == 1`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(quoted) {
			return
		}
		for _, file := range []string{
			rule(string(quoted)),
			then(`{effect: allow, caveats: [` + string(quoted) + `], ttl: ` + string(quoted) + `}`),
		} {
			set, err := load(t, file)
			if err != nil {
				var problems yamlfile.Problems
				if !errors.As(err, &problems) {
					t.Fatal(err)
				}
				_ = written(t, problems)
				continue
			}
			for _, role := range []string{"", "admin", "a\nb", strings.Repeat("x", 256)} {
				in := policy.SampleInput()
				in.Policy, in.Session.Labels["role"], in.User.ID = "p", role, role
				if d, err := policy.Ask(context.Background(), set, in); err == nil {
					within(t, d, in.Grant)
				}
			}
		}
	})
}

// FuzzInput evaluates arbitrary inputs with policies that read every field.
func FuzzInput(f *testing.F) {
	set := loadAll(f, wideFile)
	sample, err := json.Marshal(policy.SampleInput())
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range set.Names() {
		f.Add(name, string(sample))
		f.Add(name, strings.Replace(string(sample), `"192.0.2.1"`, `""`, 1))
	}
	f.Add("wide", `{"now":"0001-01-01T00:00:00Z","grant":{"ttl":"-5m","max_ttl":"2562047h"},"session":{"epoch":18446744073709551615,"created":"9999-12-31T23:59:59Z"}}`)
	f.Fuzz(func(t *testing.T, name, text string) {
		var in policy.Input
		if err := json.Unmarshal([]byte(text), &in); err != nil {
			return
		}
		in.Policy = name
		before, err := json.Marshal(in)
		if err != nil {
			return // a year outside JSON
		}
		d, err := policy.Ask(context.Background(), set, &in)
		if err == nil {
			within(t, d, in.Grant)
		} else if d.Effect != "" {
			t.Fatalf("both an error and %+v", d)
		}
		var panicked *policy.PanicError
		if errors.As(err, &panicked) {
			t.Fatalf("%v\n%s", panicked, panicked.Stack)
		}
		if after, err := json.Marshal(in); err != nil || string(after) != string(before) {
			t.Fatal("the input was changed")
		}
	})
}

const wideFile = `
version: 1
networks: {office: [192.0.2.0/24, "2001:db8::/32"]}
lists: {admins: ["@alice:example.org"]}
policies:
  wide:
    rules:
      - {name: a, when: 'session.labels.exists(k, session.labels[k] == user.id)', then: {effect: allow, ttl: grant.max_ttl + days(9), keep_sessions: 2}}
      - {name: b, when: 'has(request.ip) && request.ip in networks.office', then: {effect: allow, caveats: ["client-ip {request.ip}", "u = {user.id}", "n: {session.epoch}"], ttl: 90d}}
      - {name: c, when: 'request.client.contains("x") || session.first_client != request.client', then: {effect: allow, labels: {client: "{request.client}", mode: "{session.mode}"}, ttl: now - session.created}}
      - {name: d, when: 'grant.revokes', then: {effect: allow, ttl: 1d, caveats: [a b]}}
      - {name: e, when: 'user.id in lists.admins && now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")', then: reauth}
      - {name: f, when: 'session.epoch * 3 > homeserver.generation + user.generation && now.getHours("Asia/Tokyo") > 3', then: {effect: defer, retry_after: 5m}}
    otherwise: {effect: allow, ttl: grant.ttl + grant.ttl}
`
