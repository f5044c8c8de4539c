package rules_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rulefile"
	"github.com/discharger/discharger/policy/rules"
)

// audits counts lost records.
type audits struct {
	mu   sync.Mutex
	lost []error
}

func (a *audits) AuditFailed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lost = append(a.lost, err)
}

func records(t testing.TB, path string) []check.AuditRecord {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []check.AuditRecord
	for line := range bytes.Lines(data) {
		var r check.AuditRecord
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, r)
	}
	return all
}

func TestAudit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.ndjson")
	clock := newClock()
	seen := &audits{}
	a, err := check.NewAudit(check.AuditConfig{Path: path, Now: clock.Now, Failed: seen.AuditFailed})
	if err != nil {
		t.Fatal(err)
	}
	set := mustLoad(t, rule("user.sessions > 3"))
	e := a.Evaluator(set)
	for _, name := range []string{"p", "nobody"} {
		in := policy.SampleInput()
		in.Policy = name
		_, _ = e.Evaluate(t.Context(), in)
	}
	// As a program that rotates logs does it.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Reopen(); err != nil {
		t.Fatal(err)
	}
	a.Record(policy.SampleInput(), policy.Decision{Effect: policy.EffectDeny, RetryAfter: 90e9}, nil)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	a.Record(policy.SampleInput(), policy.Decision{}, nil)
	if len(seen.lost) != 1 || !errors.Is(seen.lost[0], os.ErrClosed) {
		t.Errorf("after Close: %v", seen.lost)
	}
	all := records(t, path)
	if first, err := os.Stat(path + ".1"); err == nil && first.Size() > 0 {
		all = append(records(t, path+".1"), all...)
	}
	if len(all) != 3 {
		t.Fatalf("%d records, want 3", len(all))
	}
	sample := policy.SampleInput()
	if r := all[0]; r.Version != 1 || !r.Time.Equal(clock.Now()) || r.Decision == nil || r.Decision.Rule != "p/otherwise" || r.Decision.Hash != set.Hash() || r.Error != "" || r.Input.Grant != sample.Grant {
		t.Errorf("first record %+v", r)
	}
	if r := all[1]; r.Decision != nil || !strings.Contains(r.Error, `policy "nobody"`) {
		t.Errorf("second record %+v", r)
	}
	if r := all[2]; r.Decision.RetryAfter != 90e9 {
		t.Errorf("third record %+v", r)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := check.NewAudit(check.AuditConfig{Path: filepath.Join(t.TempDir(), "no", "where")}); err == nil {
		t.Error("a log in a folder that is not there")
	}
	if _, err := check.NewAudit(check.AuditConfig{}); err == nil {
		t.Error("a log without a path")
	}
}

// TestAuditFull writes to a device that is always full.
func TestAuditFull(t *testing.T) {
	t.Parallel()
	seen := &audits{}
	a, err := check.NewAudit(check.AuditConfig{Path: "/dev/full", Failed: seen.AuditFailed})
	if err != nil {
		t.Fatal(err)
	}
	e := a.Evaluator(policy.Allow{})
	for range 3 {
		if d, err := e.Evaluate(t.Context(), policy.SampleInput()); err != nil || d.Effect != policy.EffectAllow {
			t.Errorf("%+v, %v", d, err)
		}
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if len(seen.lost) == 0 || !strings.Contains(seen.lost[0].Error(), "no space left") {
		t.Errorf("lost: %v", seen.lost)
	}
}

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
      1  cannot be known: a webhook decides
      1  cannot be known: user.sessions was not counted
      7  are missing in the log
      4  unreadable lines
         line 153: invalid character 'o' in literal null (expecting 'u')
         line 154: this is no record of version 1
         line 155: this is no record of version 1
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
		t.Error("a log that cannot be read is compared")
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken disk") }

// TestJSON makes sure that what is written is read again.
func TestJSON(t *testing.T) {
	t.Parallel()
	in := policy.SampleInput()
	in.Session.Labels["a"] = "b"
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var back policy.Input
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", back) != fmt.Sprintf("%+v", *in) {
		t.Errorf("got  %+v\nwant %+v", back, *in)
	}
	parsed, err := rulefile.ParseInput("x.json", data)
	if err != nil || fmt.Sprintf("%+v", parsed) != fmt.Sprintf("%+v", in) {
		t.Errorf("parsed %+v, %v\nwant   %+v", parsed, err, in)
	}
	in.Session.Labels = nil
	if data, err = json.Marshal(in); err != nil {
		t.Fatal(err)
	}
	if _, err := rulefile.ParseInput("x.json", data); err != nil {
		t.Errorf("without labels: %v", err)
	}
	parsed, err = rulefile.ParseInput("x.yaml", []byte("policy: strict\nsession: {created: -90d}\nrequest:\n  ip: 192.0.2.7\n"))
	if err != nil || parsed.Policy != "strict" || parsed.Request.IP != "192.0.2.7" || parsed.Now.Sub(parsed.Session.Created).Hours() != 90*24 {
		t.Errorf("parsed %+v, %v", parsed, err)
	}
	for text, want := range map[string]string{
		"":                             "x.yaml: file is empty",
		"[]":                           "x.yaml:1:1: input: want a mapping, got a list",
		"request: {adress: x}":         `x.yaml:1:11: request: key "adress" is unknown`,
		"session: {epoch: many}":       "x.yaml:1:18: session.epoch: want a whole number",
		"grant: {ttl: 300}":            "got 300; write 300s for seconds",
		"request: {homeserver: maybe}": "request.homeserver: want true or false",
		"session: {created: long ago}": "session.created: want a time such as",
		"user: {id: &a x}":             "anchor &a is not allowed",
	} {
		if _, err := rulefile.ParseInput("x.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, bad := range []string{`{"grant":{"ttl":5}}`, `{"grant":{"ttl":"5"}}`, `{"grant":{"ttl":"x"}}`, `{"grant":{"ttl":"1d1d"}}`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
	var d policy.Decision
	if err := json.Unmarshal([]byte(`{"effect":"defer","retry_after":"1d2h"}`), &d); err != nil || d.RetryAfter.Hours() != 26 {
		t.Errorf("%+v, %v", d, err)
	}
}
