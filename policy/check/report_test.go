package check_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

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
a.yaml:11:23: warning: session.expires is unset for some sessions and fails then; test has(session.expires) first
   11 |         when: session.expires - now < duration("1h")
      |                       ^^^^^^^
b.yaml:3:3: policy staff is a duplicate; the first is at a.yaml:5
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
  + effect: allow by rule otherwise
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
