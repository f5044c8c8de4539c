package server_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
)

func TestPolicyMetrics(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_790_000_000_000)
	log := &testkit.Buffer{}
	reg := prometheus.NewRegistry()
	m, err := server.NewPolicyMetrics(reg, slog.New(slog.NewTextHandler(log, nil)), func() time.Time { return now })
	testkit.NoError(t, err)
	trouble := errors.New("trouble")
	live, candidate := m.Live(), m.Candidate()
	live.Reloaded("aaaa", nil)
	live.Reloaded("aaaa", trouble)
	live.Reloaded("bbbb", nil)
	m.ReloadRefused()
	candidate.Reloaded("cccc", nil)
	in := policy.SampleInput()
	allow := policy.Decision{Effect: policy.EffectAllow}
	live.Shadowed(check.Comparison{Input: in, Live: allow, Candidate: allow})
	live.Shadowed(check.Comparison{Input: in, Live: allow, CandidateErr: trouble, Differences: []string{"effect"}})
	live.Shadowed(check.Comparison{Input: in, Live: allow, CandidateErr: trouble, Undetermined: true})
	live.ShadowDropped()
	for range 3 {
		live.AuditFailed(trouble)
	}
	live.WebhookCalled("risk", 20*time.Millisecond, trouble)
	live.WebhookRefused("risk", trouble)
	candidate.WebhookCalled("risk", time.Second, nil) // is not the live one's
	candidate.WebhookRefused("risk", trouble)

	want := `
discharger_policy_audit_lost_total 3
discharger_policy_info{hash="bbbb",set="live"} 1
discharger_policy_info{hash="cccc",set="candidate"} 1
discharger_policy_reloads_total{result="error",set="candidate"} 0
discharger_policy_reloads_total{result="error",set="live"} 2
discharger_policy_reloads_total{result="ok",set="candidate"} 1
discharger_policy_reloads_total{result="ok",set="live"} 2
discharger_policy_shadow_differences_total{candidate="undecided",live="allow"} 1
discharger_policy_shadow_total{result="different"} 1
discharger_policy_shadow_total{result="dropped"} 1
discharger_policy_shadow_total{result="same"} 1
discharger_policy_shadow_total{result="undetermined"} 1
discharger_policy_webhook_refused_total{webhook="risk"} 1
discharger_policy_webhook_seconds_count{result="error",webhook="risk"} 1
`
	got := exposition(t, reg)
	for line := range strings.Lines(strings.TrimSpace(want)) {
		if !strings.Contains(got, "\n"+strings.TrimSpace(line)+"\n") {
			t.Errorf("%s is not in\n%s", strings.TrimSpace(line), got)
		}
	}
	if strings.Contains(got, `hash="aaaa"`) || strings.Contains(got, `result="ok",webhook`) {
		t.Errorf("too much is in\n%s", got)
	}
	if n := strings.Count(log.String(), "audit log is incomplete"); n != 1 {
		t.Errorf("lost records are logged %d times in one moment", n)
	}
	now = now.Add(time.Minute)
	live.AuditFailed(trouble)
	if n := strings.Count(log.String(), "audit log is incomplete"); n != 2 {
		t.Errorf("lost records are logged %d times in a minute", n)
	}
	m.NoCandidate()
	if got := exposition(t, reg); strings.Contains(got, "cccc") {
		t.Error("the candidate that is gone is still shown")
	}
}

// exposition returns the metrics as Prometheus reads them.
func exposition(t *testing.T, reg *prometheus.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}
