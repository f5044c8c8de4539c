package server

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
)

// PolicyMetrics are the Prometheus metrics of a policy; they log events that need an
// operator. There may be two rule sets: the live one, which answers, and a candidate,
// which is compared with it.
type PolicyMetrics struct {
	log     *slog.Logger
	now     func() time.Time
	info    *prometheus.GaugeVec
	reloads *prometheus.CounterVec
	shadow  *prometheus.CounterVec
	differ  *prometheus.CounterVec
	lost    prometheus.Counter
	hooks   *prometheus.HistogramVec
	refused *prometheus.CounterVec
	loudAt  atomic.Int64 // when a lost audit record was last logged, in Unix ns
}

// NewPolicyMetrics makes the metrics and registers them. Log and now are required.
func NewPolicyMetrics(reg prometheus.Registerer, log *slog.Logger, now func() time.Time) (*PolicyMetrics, error) {
	if log == nil || now == nil {
		return nil, errors.New("policy metrics need a log and a clock")
	}
	made := maker{reg: reg}
	m := &PolicyMetrics{
		log: log, now: now,
		info: made.gauges("discharger_policy_info",
			"Always 1; hash identifies the rule files in force, set is live or candidate.", "set", "hash"),
		reloads: made.counters("discharger_policy_reloads_total", "Attempts to load rule files, by set and result.", "set", "result"),
		shadow: made.counters("discharger_policy_shadow_total",
			"Decisions that were compared with the candidate: same, different, undetermined, or dropped because it is too slow.", "result"),
		differ: made.counters("discharger_policy_shadow_differences_total",
			"Decisions that the candidate would change, by the effects of both; equal effects differ in something else.", "live", "candidate"),
		lost: made.counter("discharger_policy_audit_lost_total", "Times that records did not reach the audit log."),
		hooks: made.histograms("discharger_policy_webhook_seconds",
			"Time until a webhook answered or was given up, by webhook and result.",
			[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}, "webhook", "result"),
		refused: made.counters("discharger_policy_webhook_refused_total",
			"Questions that did not go out, because the webhook fails or has too many already.", "webhook"),
	}
	if made.err != nil {
		return nil, fmt.Errorf("register policy metrics: %w", made.err)
	}
	for _, set := range []string{setLive, setCandidate} {
		for _, result := range []string{"ok", "error"} {
			m.reloads.WithLabelValues(set, result) // from the start, so that a rise from 0 is seen
		}
	}
	for _, result := range []string{"same", "different", "undetermined", "dropped"} {
		m.shadow.WithLabelValues(result)
	}
	return m, nil
}

// The values of the label set.
const (
	setLive      = "live"
	setCandidate = "candidate"
)

// Live returns the observer of the live set, its audit log, and the comparison.
func (m *PolicyMetrics) Live() *SetObserver { return &SetObserver{m, setLive} }

// Candidate returns the observer of the candidate. The calls of its webhooks are not
// counted: they would be taken for those of the live set.
func (m *PolicyMetrics) Candidate() *SetObserver { return &SetObserver{m, setCandidate} }

// ReloadRefused counts an attempt to load the live set's files whose error the
// caller logs.
func (m *PolicyMetrics) ReloadRefused() { m.reloads.WithLabelValues(setLive, "error").Inc() }

// NoCandidate removes the candidate.
func (m *PolicyMetrics) NoCandidate() {
	m.info.DeletePartialMatch(prometheus.Labels{"set": setCandidate})
}

// A SetObserver observes one rule set. It implements the observers of webhooks
// and of comparisons.
type SetObserver struct {
	m   *PolicyMetrics
	set string
}

// Reloaded counts a reload, and sets and logs the rules in force.
func (o *SetObserver) Reloaded(hash string, err error) {
	o.m.reloads.WithLabelValues(o.set, resultLabel(err)).Inc()
	if err != nil {
		o.m.log.Error("policy files cannot be used, the last good ones stay",
			slog.String("set", o.set), slog.String("hash", hash), slog.Any("error", err))
		return
	}
	o.m.info.DeletePartialMatch(prometheus.Labels{"set": o.set})
	o.m.info.WithLabelValues(o.set, hash).Set(1)
	o.m.log.Info("policy in force", slog.String("set", o.set), slog.String("hash", hash))
}

// Shadowed counts a comparison, and logs it if the candidate differs.
func (o *SetObserver) Shadowed(c check.Comparison) {
	switch {
	case c.Undetermined:
		o.m.shadow.WithLabelValues("undetermined").Inc()
		return
	case len(c.Differences) == 0:
		o.m.shadow.WithLabelValues("same").Inc()
		return
	}
	live, candidate := effectLabel(c.Live, c.LiveErr), effectLabel(c.Candidate, c.CandidateErr)
	o.m.shadow.WithLabelValues("different").Inc()
	o.m.differ.WithLabelValues(live, candidate).Inc()
	attrs := []any{
		slog.String("session", c.Input.Session.ID), slog.String("homeserver", c.Input.Homeserver.Name),
		slog.String("policy", c.Input.Policy), slog.Any("parts", c.Differences),
		slog.String("live", live), slog.String("live_rule", c.Live.Rule),
		slog.String("candidate", candidate), slog.String("candidate_rule", c.Candidate.Rule),
		slog.String("candidate_hash", c.Candidate.Hash),
	}
	if c.CandidateErr != nil {
		attrs = append(attrs, slog.Any("candidate_error", c.CandidateErr))
	}
	o.m.log.Info("candidate would decide otherwise", attrs...)
}

// effectLabel is a decision's effect, or that there is none.
func effectLabel(d policy.Decision, err error) string {
	if err != nil {
		return "undecided"
	}
	return string(d.Effect)
}

// ShadowDropped counts a comparison that was not made.
func (o *SetObserver) ShadowDropped() { o.m.shadow.WithLabelValues("dropped").Inc() }

// loudEvery is the interval at which lost audit records are logged, which come with
// every request.
const loudEvery = 10 * time.Second

// AuditFailed counts entries missing in the audit log.
func (o *SetObserver) AuditFailed(err error) {
	o.m.lost.Inc()
	now, last := o.m.now().UnixNano(), o.m.loudAt.Load()
	if now-last >= int64(loudEvery) && o.m.loudAt.CompareAndSwap(last, now) {
		o.m.log.Error("audit log is incomplete", slog.Any("error", err))
	}
}

// WebhookCalled times a webhook. An error of one is logged with the request that
// it left undecided.
func (o *SetObserver) WebhookCalled(name string, took time.Duration, err error) {
	if o.set != setLive {
		return
	}
	o.m.hooks.WithLabelValues(name, resultLabel(err)).Observe(took.Seconds())
}

// WebhookRefused counts a request that was not sent.
func (o *SetObserver) WebhookRefused(name string, _ error) {
	if o.set == setLive {
		o.m.refused.WithLabelValues(name).Inc()
	}
}
