package rulefile

import (
	"errors"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/webhook"
)

// decisionKeys are what a test can expect of a decision.
func decisionKeys() []string {
	return append([]string{"rule", "error"}, slices.DeleteFunc(ThenKeys(), func(k string) bool { return k == "webhook" })...)
}

// Undecided stands for an evaluation that fails.
const Undecided = "undecided"

func (f *File) readExpect(n *yaml.Node) Expectation {
	e := Expectation{Values: map[string]string{}}
	if n.Kind == yaml.ScalarNode {
		if n.Value == Undecided {
			e.Undecided = true
			return e
		}
		e.set("effect", string(f.effect(n)))
		return e
	}
	keys := f.keys(n, "expect", decisionKeys()...)
	for _, key := range decisionKeys() {
		if keys[key] != nil {
			f.expectKey(&e, key, keys[key])
		}
	}
	if len(e.Keys) == 0 && !e.Undecided {
		f.ErrorAt(n, "expect expects nothing")
	}
	return e
}

func (e *Expectation) set(key, value string) {
	e.Keys = append(e.Keys, key)
	e.Values[key] = value
}

func (f *File) expectKey(e *Expectation, key string, n *yaml.Node) {
	switch key {
	case "error":
		e.Undecided = true
		e.Reason, _ = f.text(n, key, maxDoc)
	case "effect":
		e.set(key, string(f.effect(n)))
	case "ttl", "retry_after":
		e.set(key, f.duration(n, key, 0, 1<<62).String())
	case "soft_logout":
		e.set(key, strconv.FormatBool(f.flag(n, key)))
	case "keep_sessions":
		e.set(key, strconv.Itoa(f.number(n, key, 0, 10000)))
	case "caveats":
		var all []string
		for _, item := range f.items(n, key, policy.MaxCaveats) {
			s, _ := f.text(item, "a caveat", policy.MaxCaveat)
			all = append(all, s)
		}
		e.set(key, policy.ListText(all))
	case "labels":
		labels := map[string]string{}
		for _, entry := range f.entries(n, key) {
			labels[entry.Key], _ = f.text(entry.Value, "a label", policy.MaxLabelValue)
		}
		e.set(key, policy.MapText(labels))
	default:
		s, _ := f.text(n, key, maxDoc)
		e.set(key, s)
	}
}

// readStub reads what a webhook answers in a test.
func (f *File) readStub(n *yaml.Node) webhook.Stub {
	if n.Kind == yaml.ScalarNode {
		switch n.Value {
		case "unavailable":
			return webhook.Stub{Err: errors.New("the test makes it unavailable")}
		case "no_opinion":
			return webhook.Stub{}
		}
		return webhook.Stub{Answer: webhook.Answer{Decision: policy.Decision{Effect: f.effect(n)}, Settled: true}}
	}
	t := f.readThen(n, "the webhook's answer")
	d := t.Decision
	if t.Webhook != "" {
		f.ErrorAt(n, "a webhook cannot answer with a webhook")
	}
	if t.TTL != nil {
		d.TTL = f.duration(t.TTL, "ttl", policy.MinTTL, 1<<62)
	}
	for _, c := range t.Caveats {
		d.Caveats = append(d.Caveats, c.Value)
	}
	for _, e := range t.Labels {
		if d.Labels == nil {
			d.Labels = map[string]string{}
		}
		d.Labels[e.Key] = e.Value.Value
	}
	return webhook.Stub{Answer: webhook.Answer{Decision: d, Settled: true}}
}

// An Expectation is what a test expects, by key; see [policy.Decision.Parts].
type Expectation struct {
	Keys      []string
	Values    map[string]string
	Undecided bool
	Reason    string // text that the error must have in it
}
