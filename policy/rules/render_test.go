package rules_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

// written returns what something writes.
func written(t testing.TB, w io.WriterTo) string {
	t.Helper()
	var b strings.Builder
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// same compares texts line by line.
func same(t *testing.T, got, want string) {
	t.Helper()
	want = strings.TrimPrefix(want, "\n")
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestPlaces finds the same mistake in each of the ways in which YAML writes a
// string.
func TestPlaces(t *testing.T) {
	t.Parallel()
	_, err := load(t, `version: 1
policies:
  p:
    rules:
      - name: plain
        when: now - session.creatd > days(1)
        then: deny
      - name: double
        when: "user.id == \"\\\"ü\" && now - session.creatd > days(1)"
        then: deny
      - name: single
        when: 'user.id == ''ü'' && now - session.creatd > days(1)'
        then: deny
      - name: literal
        when: |
          user.id == "ü" &&
            now - session.creatd > days(1)
        then: deny
      - name: folded
        when: >-
          user.id == "ü" &&
          now - session.creatd > days(1)
        then: deny
      - name: lines
        when: user.id == "ü" &&
          now - session.creatd > days(1)
        then: {effect: allow, caveats: ["id {user.id} {session.creatd}"], ttl: now - session.creatd}
      - name: indented
        when: |2
            user.id == "ü" &&
              now - session.creatd > days(1)
        then: deny
    otherwise: allow
`)
	var problems yamlfile.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	same(t, written(t, problems), `
p.yaml:6:29: session has no field creatd (did you mean created?)
    6 |         when: now - session.creatd > days(1)
      |                             ^^^^^^
p.yaml:9:54: session has no field creatd (did you mean created?)
    9 |         when: "user.id == \"\\\"ü\" && now - session.creatd > days(1)"
      |                                                      ^^^^^^
p.yaml:12:50: session has no field creatd (did you mean created?)
   12 |         when: 'user.id == ''ü'' && now - session.creatd > days(1)'
      |                                                  ^^^^^^
p.yaml:17:27: session has no field creatd (did you mean created?)
   17 |             now - session.creatd > days(1)
      |                           ^^^^^^
p.yaml:22:25: session has no field creatd (did you mean created?)
   22 |           now - session.creatd > days(1)
      |                         ^^^^^^
p.yaml:26:25: session has no field creatd (did you mean created?)
   26 |           now - session.creatd > days(1)
      |                         ^^^^^^
p.yaml:27:64: session has no field creatd (did you mean created?)
   27 |         then: {effect: allow, caveats: ["id {user.id} {session.creatd}"], ttl: now - session.creatd}
      |                                                                ^^^^^^
p.yaml:27:94: session has no field creatd (did you mean created?)
   27 |         then: {effect: allow, caveats: ["id {user.id} {session.creatd}"], ttl: now - session.creatd}
      |                                                                                              ^^^^^^
p.yaml:31:29: session has no field creatd (did you mean created?)
   31 |               now - session.creatd > days(1)
      |                             ^^^^^^
`)
}

func TestLongLine(t *testing.T) {
	t.Parallel()
	_, err := load(t, rule(`user.id in ["`+strings.Repeat("\t", 5)+strings.Repeat("x", 200)+`"] && session.epok > 3 && user.id != "`+strings.Repeat("y", 200)+`"`))
	var problems yamlfile.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	lines := strings.Split(written(t, problems), "\n")
	if len(lines[1]) > 130 || len(lines[2]) > 130 {
		t.Errorf("lines of %d and %d characters", len(lines[1]), len(lines[2]))
	}
	if at := strings.Index(lines[2], "^^^^"); at < 0 || lines[1][at:at+4] != "epok" {
		t.Errorf("underlined is not the mistake:\n%s\n%s", lines[1], lines[2])
	}
}

func TestManyProblems(t *testing.T) {
	t.Parallel()
	_, err := load(t, "version: 1\npolicies:\n  p: {otherwise: allow}\nlists: {a: ["+strings.Repeat("7, ", 200)+"]}\n")
	var problems yamlfile.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	if len(problems) != 51 || !strings.Contains(problems[50].Message, "more than 50 problems") {
		t.Errorf("%d problems, the last is %v", len(problems), problems[len(problems)-1])
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"a.yaml": {Data: []byte(`version: 1
networks: {office: [192.0.2.0/24]}
webhooks: {risk: {url: "https://risk.example.org/", secret_file: not-there}}
policies:
  staff:
    rules:
      - name: abroad
        when: '!(request.ip in networks.office)'
        then: {effect: allow, ttl: 1m, caveats: ["client-ip {request.ip}"]}
      - name: ends
        when: session.expires - now < duration("1h")
        then: {webhook: risk}
    otherwise: allow
  empty: {otherwise: deny}
`)},
		"b.yaml": {Data: []byte("version: 1\npolicies:\n  staff: {otherwise: allow}\n  other: {otherwise: alow}\n")},
	}
	report, err := check.Files(rules.Config{FS: files, Files: []string{"a.yaml", "b.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	if report.OK() {
		t.Error("the files are OK")
	}
	same(t, written(t, report), `
a.yaml:11:23: warning: not every session has session.expires, and without it this fails; ask has(session.expires) first
   11 |         when: session.expires - now < duration("1h")
      |                       ^^^^^^^
b.yaml:3:3: there is a policy staff already, at a.yaml:5
    3 |   staff: {otherwise: allow}
      |   ^^^^^
b.yaml:4:22: otherwise: want allow, deny, revoke, revoke_user, reauth or defer, got "alow" (did you mean allow?)
    4 |   other: {otherwise: alow}
      |                      ^^^^
a.yaml: policy staff: a decision costs at most 19 of 10000
     abroad  7 + 2   line 7
       ends      6  line 10
  otherwise      0  line 13
a.yaml: policy empty: a decision costs at most 0 of 10000
  otherwise  0  line 14
b.yaml: policy other: a decision costs at most 0 of 10000
  otherwise  0  line 4
`)
	if _, err := check.Files(rules.Config{FS: files, Files: []string{"c.yaml"}}); err == nil {
		t.Error("a file that is not there was checked")
	}
}

func TestTestReport(t *testing.T) {
	t.Parallel()
	set, err := rules.Load(rules.Config{SkipTests: true, Files: []string{"p.yaml"}, FS: fstest.MapFS{"p.yaml": {Data: []byte(`version: 1
policies:
  p:
    rules:
      - {name: theft, when: replay == "reuse", then: revoke_user}
      - {name: late, when: now - session.created > days(30), then: {effect: reauth, code: old}}
    otherwise: {effect: allow, ttl: 2m, caveats: [a b]}
    tests:
      - {name: right, expect: {ttl: 2m, caveats: [a b], rule: otherwise}}
      - name: wrong
        input: {session: {created: -31d}}
        expect: {effect: allow, ttl: 2m}
      - name: undecided
        expect: undecided
      - name: fails
        input: {now: "2026-03-02T12:00:00Z"}
        expect: {effect: allow, caveats: [], labels: {x: "y"}, rule: late}
`)}}})
	if err != nil {
		t.Fatal(err)
	}
	report := check.Tests(set)
	same(t, written(t, report), `
FAIL p: wrong (p.yaml:10)
  - effect: allow
  + effect: reauth
  - ttl: 2m0s
  + ttl: 0s
  + rule: late
FAIL p: undecided (p.yaml:13)
  - effect: undecided
  + effect: allow by the rule otherwise
FAIL p: fails (p.yaml:15)
  - rule: late
  + rule: otherwise
  - caveats: []
  + caveats: ["a b"]
  - labels: {x: "y"}
  + labels: {}
1 passed, 3 failed
`)
	var b strings.Builder
	if err := report.WriteCoverage(&b); err != nil {
		t.Fatal(err)
	}
	same(t, b.String(), "p: 2 of 3 rules decide in a test; never: theft\n")
}

func TestExplain(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, `version: 1
networks: {office: [192.0.2.0/24]}
policies:
  p:
    rules:
      - name: too-old
        doc: Three months.
        when: now - session.created > days(90)
        then: {effect: reauth, code: old}
      - name: admin
        when: |
          session.labels[?"role"].orValue("") == "admin" &&
            !(request.ip in networks.office)
        then: {effect: deny, code: admin_network}
      - name: any
        when: session.labels.exists(k, k == "x") || session.epoch > 3
        then: {effect: allow, ttl: 1m, caveats: ["client-ip {request.ip}"]}
      - name: last
        when: session.expires > now
        then: deny
    otherwise: allow
`)
	in := policy.SampleInput()
	in.Policy = "p"
	in.Session.Labels["role"] = "admin"
	same(t, written(t, set.Explain(t.Context(), in)), `
policy p
  too-old: not matched (cost 6)
      Three months.
      when: now - session.created > days(90)
      now = 2026-03-02T12:00:00Z
      session.created = 2026-02-20T12:00:00Z
      now - session.created = 240h0m0s
      days(90) = 2160h0m0s
  admin: not matched (cost 11)
      when: session.labels[?"role"].orValue("") == "admin" && !(request.ip in networks.office)
      session.labels[?"role"] = "admin"
      session.labels[?"role"].orValue("") = "admin"
      session.labels[?"role"].orValue("") == "admin" = true
      request.ip = "192.0.2.1"
      request.ip in networks.office = true
      !(request.ip in networks.office) = false
  any: matched (cost 12)
      when: session.labels.exists(k, k == "x") || session.epoch > 3
      session.labels.exists(k, k == "x") = false
      session.epoch = 1000
      session.epoch > 3 = true
  last: not reached
allow by p/any, ttl 1m0s, caveats ["client-ip 192.0.2.1"]
`)
	in.Session.Epoch = 0
	same(t, lastLines(written(t, set.Explain(t.Context(), in)), 5), `
  last: failed (cost 2)
      when: session.expires > now
      session.expires = error: session.expires is not known here; ask has(session.expires) first
      error: session.expires is not known here; ask has(session.expires) first
undecided: policy p: rule last: session.expires is not known here; ask has(session.expires) first
`)
	in.Policy = "q"
	same(t, written(t, set.Explain(t.Context(), in)), "policy q\nundecided: policy \"q\": no such policy\n")
}

func lastLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-1-n):], "")
}
