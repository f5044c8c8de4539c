package check_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	old := mustLoad(t, rule("session.epoch > 100"))
	changed := mustLoad(t, `version: 1
webhooks: {w: {url: "https://x.org/", secret_file: k}}
policies:
  p:
    rules:
      - {name: r, when: session.epoch > 50, then: deny}
      - {name: short, when: session.epoch > 20, then: {effect: allow, ttl: 1m}}
      - {name: hook, when: session.epoch == 1, then: {webhook: w}}
      - {name: counts, when: session.epoch == 2 && user.sessions > 3, then: deny}
      - {name: fails, when: session.epoch == 3 && session.expires > now, then: deny}
    otherwise: allow
`)
	var log bytes.Buffer
	for epoch := range uint64(150) {
		in := policy.SampleInput()
		in.Policy, in.Session.Epoch, in.User.Sessions = "p", epoch, -1
		d, err := policy.Ask(t.Context(), old, in)
		r := check.AuditRecord{Version: 1, Time: in.Now, Input: in, Decision: &d}
		if err != nil {
			t.Fatal(err)
		}
		line, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		log.Write(append(line, '\n'))
	}
	log.WriteString("\n{\"version\":1,\"time\":\"2026-03-02T12:00:00Z\",\"dropped\":7}\nnot JSON\n{}\n{\"version\":2}\n")
	log.WriteString(`{"version":1,"input":{}` + strings.Repeat(" ", 70000) + "}\n")
	log.WriteString(`{"version":1,"input":{},"error":"x"}`)
	text := log.String()
	want := `
81 of 151 decisions change
     50  allow → deny  (p/otherwise → p/r; lines 52, 53, 54, 55, 56)
     30  allow → allow with another ttl  (p/otherwise → p/short; lines 22, 23, 24, 25, 26)
      1  allow → undecided  (p/otherwise → undecided; line 4)
      1  undetermined: a webhook decides
      1  undetermined: user.sessions is unknown
      7  lost according to the log
      4  unreadable lines
         line 153: invalid character 'o' in literal null (expecting 'u')
         line 154: record is not of version 1
         line 155: record is not of version 1
         line 156: more than 65536 bytes
`
	for name, from := range map[string]*rules.Set{"with the old set": old, "as recorded": nil} {
		report, err := check.Diff(t.Context(), from, changed, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { same(t, written(t, report), want) })
	}
	report, err := check.Diff(t.Context(), old, old, strings.NewReader(text))
	if err != nil || report.Changed() != 0 || report.Records != 151 {
		t.Errorf("a set against itself: %+v, %v", report, err)
	}
	if _, err := check.Diff(t.Context(), old, changed, failing{}); err == nil {
		t.Error("no error from an unreadable log")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken disk") }

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

// FuzzDiff parses arbitrary text as an audit log.
func FuzzDiff(f *testing.F) {
	set := mustLoad(f, strings.Replace(wideFile, "wide:", "p:", 1))
	in := policy.SampleInput()
	in.Policy = "p"
	d, err := policy.Ask(context.Background(), set, in)
	if err != nil {
		f.Fatal(err)
	}
	line, err := json.Marshal(check.AuditRecord{Version: 1, Time: in.Now, Input: in, Decision: &d})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(line) + "\n" + string(line))
	f.Add(`{"version":1,"dropped":3}` + "\n" + `{"version":1,"input":{},"error":"x"}`)
	f.Fuzz(func(t *testing.T, log string) {
		report, err := check.Diff(context.Background(), nil, set, strings.NewReader(log))
		if err != nil {
			t.Fatal(err)
		}
		if report.Changed() > report.Records {
			t.Fatalf("%d of %d changed", report.Changed(), report.Records)
		}
		_ = written(t, report)
	})
}
