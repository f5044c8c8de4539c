package rulefile

import (
	"errors"
	"slices"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/webhook"
)

// An Expectation is the expect of a test: parts of a decision, or an error.
type Expectation struct {
	Keys      []string // expected parts, in the order of the documentation
	Decision  policy.Decision
	Undecided bool   // want an undecided request
	Reason    string // text in its error
}

// expectKeys returns the keys of expect.
func expectKeys() []string {
	return append([]string{"rule", "error"}, slices.DeleteFunc(ThenKeys(), func(k string) bool { return k == "webhook" })...)
}

// Undecided is the expectation of an undecided request, in place of an effect.
const Undecided = "undecided"

func (f *File) readExpect(n *yamlfile.Node) (e Expectation) {
	if yamlfile.IsScalar(n) && n.Value == Undecided {
		return Expectation{Undecided: true}
	}
	if yamlfile.IsScalar(n) {
		return Expectation{Keys: []string{"effect"}, Decision: policy.Decision{Effect: f.effect(n, "effect")}}
	}
	keys := f.Fields(n, "expect", expectKeys()...)
	for _, key := range expectKeys() {
		if keys.Get(key) != nil && key != "error" {
			e.Keys = append(e.Keys, key)
		}
	}
	e.Undecided = keys.Get("error") != nil
	e.Reason, _ = f.Text(keys.Get("error"), "error", maxDoc)
	d := &e.Decision
	d.Rule, _ = f.Text(keys.Get("rule"), "rule", maxDoc)
	d.Effect = f.effect(keys.Get("effect"), "effect")
	d.TTL, _ = f.Duration(keys.Get("ttl"), "ttl", 0, 1<<62)
	for _, item := range f.texts(keys.Get("caveats"), "caveats", policy.MaxCaveats, policy.MaxCaveat) {
		d.Caveats = append(d.Caveats, item.Value)
	}
	d.Code, _ = f.Text(keys.Get("code"), "code", maxDoc)
	d.Message, _ = f.Text(keys.Get("message"), "message", maxDoc)
	d.SoftLogout = f.Bool(keys.Get("soft_logout"), "soft_logout")
	d.Labels = f.labels(keys.Get("labels"), "labels")
	d.KeepSessions, _ = f.Int(keys.Get("keep_sessions"), "keep_sessions", 0, 10000)
	d.RetryAfter, _ = f.Duration(keys.Get("retry_after"), "retry_after", 0, 1<<62)
	if len(e.Keys) == 0 && !e.Undecided {
		f.Invalid(n, "expect", "want at least one key")
	}
	return e
}

// labels decodes a mapping of names to strings.
func (f *File) labels(n *yamlfile.Node, path string) map[string]string {
	labels := map[string]string{}
	for _, e := range f.Entries(n, path) {
		labels[e.Key], _ = f.Text(e.Value, path+"."+e.Key, policy.MaxLabelValue)
	}
	return labels
}

// readStub returns the answer of a webhook in a test.
func (f *File) readStub(n *yamlfile.Node) webhook.Stub {
	if yamlfile.IsScalar(n) {
		switch n.Value {
		case "unavailable":
			return webhook.Stub{Err: errors.New("unavailable in this test")}
		case "no_opinion":
			return webhook.Stub{}
		}
		return webhook.Stub{Answer: webhook.Answer{Decision: policy.Decision{Effect: f.effect(n, "effect")}, Settled: true}}
	}
	t := f.readThen(n, "webhooks")
	d := t.Decision
	d.Labels = map[string]string{}
	if t.Webhook != "" {
		f.Invalid(n, "webhooks", "want a decision, got a webhook")
	}
	if t.TTL != nil {
		d.TTL, _ = f.Duration(t.TTL, "ttl", policy.MinTTL, 1<<62)
	}
	for _, c := range t.Caveats {
		d.Caveats = append(d.Caveats, c.Value)
	}
	for _, e := range t.Labels {
		d.Labels[e.Key] = e.Value.Value
	}
	return webhook.Stub{Answer: webhook.Answer{Decision: d, Settled: true}}
}
