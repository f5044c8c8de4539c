package rules_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
)

// written returns the output of WriteTo.
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

// TestPositions finds a mistake in each form of YAML strings.
func TestPositions(t *testing.T) {
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
		t.Errorf("the mistake is not underlined:\n%s\n%s", lines[1], lines[2])
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
      session.expires = error: session.expires is unset; test has(session.expires) first
      error: session.expires is unset; test has(session.expires) first
undecided: policy p: rule last: session.expires is unset; test has(session.expires) first
`)
	in.Policy = "q"
	same(t, written(t, set.Explain(t.Context(), in)), "policy q\nundecided: policy \"q\": policy is unknown\n")
}

func lastLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-1-n):], "")
}
