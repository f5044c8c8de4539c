package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

const ruleFile = `
version: 1
networks:
  office: [203.0.113.0/24]
policies:
  default:
    rules:
      - name: admins-at-the-office
        when: session.labels[?"role"].orValue("") == "admin" && !(request.ip in networks.office)
        then: {effect: deny, code: admin_network, message: Only at the office.}
      - name: admins-briefly
        when: session.labels[?"role"].orValue("") == "admin"
        then: {effect: allow, ttl: 1m, caveats: ["client-ip {request.ip}"]}
    otherwise: {effect: allow, ttl: 10m}
  one:
    rules:
      - {name: only-one, when: action == "activate" && user.sessions >= 1, then: {effect: deny, code: too_many_sessions}}
    otherwise: allow
  two:
    rules:
      - {name: make-room, when: action == "activate", then: {effect: allow, keep_sessions: 2}}
    otherwise: allow
`

// TestRulesDecide checks the decisions of rules over HTTP, each twice.
func TestRulesDecide(t *testing.T) {
	t.Parallel()
	r := newRuled(t, ruleFile, "", nil)
	admin := r.login(caveat.ModeOpen, "", map[string]string{"role": "admin"})
	user := r.login(caveat.ModeRotate, "", nil)
	for range 3 {
		admin.granted(time.Minute)
		user.granted(10 * time.Minute)
	}
	elsewhere := admin.at("198.51.100.66")
	if refusal := elsewhere.refused("admin_network"); refusal.Message != "Only at the office." || refusal.Ended {
		t.Errorf("refused with %+v", refusal)
	}
	user.at("198.51.100.66").granted(10 * time.Minute)
	admin.granted(time.Minute) // the session lives on
	r.login(caveat.ModeOpen, "nowhere", nil).undecided()
	r.login(caveat.ModeOpen, "guest", nil).granted(2 * time.Minute) // built in
	r.waitFor(`msg=request .*status=401 .*reason=admin_network rule=default/admins-at-the-office policy_hash=[0-9a-f]{16}`)
	r.waitFor(`msg=request .*status=503`)
}

// A limit of sessions refuses the one too many, or ends the longest unused.
func TestRulesLimitSessions(t *testing.T) {
	t.Parallel()
	r := newRuled(t, ruleFile, "", nil)
	first, second, third := r.login(caveat.ModeRotate, "two", nil), r.login(caveat.ModeRotate, "two", nil), r.login(caveat.ModeRotate, "two", nil)
	first.granted(5 * time.Minute)
	second.granted(5 * time.Minute)
	for used := time.Now().UnixMilli(); time.Now().UnixMilli() == used; { // the resolution of a recorded use
	}
	first.granted(5 * time.Minute) // now the second is the longest unused
	third.granted(5 * time.Minute)
	second.refused("session_ended")
	first.granted(5 * time.Minute)
	third.granted(5 * time.Minute)
	r.login(caveat.ModeRotate, "one", nil).refused("too_many_sessions")
	first.granted(5 * time.Minute)
}

func withTTL(seconds int) string {
	return fmt.Sprintf("version: 1\npolicies:\n  default:\n    rules: []\n    otherwise: {effect: allow, ttl: %ds}\n", seconds)
}

// TestRulesReload changes rules under load, by SIGHUP and by watching. No request is
// refused, and unusable rules change nothing.
func TestRulesReload(t *testing.T) {
	t.Parallel()
	r := newRuled(t, withTTL(600), "", nil)
	var stop atomic.Bool
	var asked, failed atomic.Int64
	var clients sync.WaitGroup
	for range 32 {
		v := r.login(caveat.ModeRotate, "", nil)
		clients.Go(func() {
			for !stop.Load() {
				if _, err := v.ask(); err != nil {
					failed.Add(1)
					t.Errorf("under load: %v", err)
					return
				}
				asked.Add(1)
			}
		})
	}
	// Under load the log is long; the metrics show the reloads.
	const bad = `discharger_policy_reloads_total{result="error",set="live"}`
	for i := range 5 {
		r.write("policy.yaml", withTTL(601+i))
		if i%2 == 0 {
			r.hangup()
			// Else it might come when the next file is there, which is a bad one.
			r.must(r.p.waitForTimes("msg=reloaded", 1+i/2))
		}
		r.inForce()
	}
	seen := r.login(caveat.ModeOpen, "", nil)
	seen.granted(605 * time.Second)
	r.write("policy.yaml", "version: 1\npolicies: {default: {otherwise: alow}}\n")
	r.eventually(bad, 1)
	r.hangup()
	r.eventually(bad, 2)
	seen.granted(605 * time.Second)
	r.write("policy.yaml", withTTL(1200))
	r.inForce()
	seen.granted(20 * time.Minute)
	stop.Store(true)
	clients.Wait()
	if asked.Load() < 32 || failed.Load() > 0 {
		t.Errorf("%d answers and %d failures", asked.Load(), failed.Load())
	}
	r.waitFor(`msg="policy files cannot be used, the last good ones stay" set=live hash=[0-9a-f]{16} .*did you mean allow`)
	r.waitFor(`msg="reload failed, keeping the configuration in force" .*did you mean allow`)
	t.Logf("%d requests", asked.Load())
}

// TestRulesShadow checks that a candidate changes no answer, and that its differences
// are counted and logged.
func TestRulesShadow(t *testing.T) {
	t.Parallel()
	r := newRuled(t, withTTL(600), "shadow: $DIR/candidate.yaml", map[string]string{"candidate.yaml": `
version: 1
policies:
  default:
    rules:
      - {name: revoke-phones, when: session.device.startsWith("PHONE-") && action == "refresh", then: revoke}
    otherwise: {effect: allow, ttl: 600s}
`})
	v := r.login(caveat.ModeRotate, "", nil)
	for range 4 {
		v.granted(10 * time.Minute)
	}
	r.eventually(`discharger_policy_shadow_total{result="different"}`, 3)
	r.eventually(`discharger_policy_shadow_total{result="same"}`, 1)
	r.eventually(`discharger_policy_shadow_differences_total{candidate="revoke",live="allow"}`, 3)
	r.waitFor(`msg="candidate would decide otherwise" .*live=allow live_rule=default/otherwise candidate=revoke candidate_rule=default/revoke-phones`)

	// It is watched too, and a broken one leaves the last good one in force.
	r.write("candidate.yaml", withTTL(600))
	r.waitFor(`(?s)(msg="policy in force" set=candidate.*){2}`)
	r.write("candidate.yaml", "broken")
	r.waitFor(`policy files cannot be used, the last good ones stay" set=candidate`)
	v.granted(10 * time.Minute)
	r.eventually(`discharger_policy_shadow_total{result="same"}`, 2)
}

// TestRulesAudit checks that the audit log has every decision and no secret, is reopened
// at SIGHUP, and can be replayed with other rules.
func TestRulesAudit(t *testing.T) {
	t.Parallel()
	r := newRuled(t, ruleFile, "audit: $DIR/audit.ndjson", map[string]string{
		"stricter.yaml": strings.ReplaceAll(ruleFile, "203.0.113.0/24", "192.0.2.0/24"),
	})
	admin := r.login(caveat.ModeRotate, "", map[string]string{"role": "admin"})
	var secrets []string
	for range 3 {
		g := admin.granted(time.Minute)
		bundle, err := g.Bundle()
		r.must(err)
		token, err := g.Token.MarshalText()
		r.must(err)
		secrets = append(secrets, bundle, string(token), hex.EncodeToString(g.Discharge.Signature()))
	}
	admin.at("198.51.100.66").refused("admin_network")
	log := filepath.Join(r.dir, "audit.ndjson")
	r.must(os.Rename(log, log+".1"))
	r.must(os.Mkdir(log, 0o700)) // so that it cannot be opened
	r.hangup()
	r.waitFor(`msg="audit log cannot be reopened`)
	r.waitFor("msg=reloaded")
	r.must(os.Remove(log))
	if line := r.p.reload(t, didReload); strings.Contains(r.p.text(), didNotReload) {
		t.Errorf("a reload failed: %s", line)
	}
	admin.granted(time.Minute)
	if err := r.p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code, err := r.p.wait(); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v", code, err)
	}
	old, err := os.ReadFile(log + ".1")
	r.must(err)
	recent, err := os.ReadFile(log)
	r.must(err)
	if o, n := strings.Count(string(old), "\n"), strings.Count(string(recent), "\n"); o != 4 || n != 1 {
		t.Errorf("%d and %d records, want 4 and 1:\n%s%s", o, n, old, recent)
	}
	for _, c := range admin.access.Macaroon.Caveats() {
		secrets = append(secrets, string(c.Id), base64.RawURLEncoding.EncodeToString(c.Id), base64.StdEncoding.EncodeToString(c.Id))
	}
	for _, secret := range append(secrets, ruledKey) {
		for _, text := range []string{string(old), string(recent), r.p.text()} {
			if secret == "" || strings.Contains(text, secret) {
				t.Errorf("a log shows %q", secret)
			}
		}
	}
	out := r.discharger("policy", "diff", "--replay", log+".1", "policy.yaml", "stricter.yaml")
	if !strings.HasPrefix(out, "3 of 4 decisions change\n") || !strings.Contains(out, "3  allow → deny  (default/admins-briefly → default/admins-at-the-office; lines 1, 2, 3)") {
		t.Errorf("diff prints\n%s", out)
	}
	if out := r.discharger("policy", "diff", "--replay", log+".1", "policy.yaml"); !strings.HasPrefix(out, "0 of 4 decisions change\n") {
		t.Errorf("with the recorded decisions, diff prints\n%s", out)
	}
}

// discharger runs a command in the directory of the rules.
func (r *ruled) discharger(args ...string) string {
	r.t.Helper()
	program, err := exec.LookPath("discharger")
	r.must(err)
	cmd := exec.CommandContext(r.t.Context(), program, args...)
	cmd.Dir = r.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("discharger %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
