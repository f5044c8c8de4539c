package rulefile

import (
	"errors"
	"slices"
	"strconv"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/webhook"
)

// decisionKeys returns the keys of expect.
func decisionKeys() []string {
	return append([]string{"rule", "error"}, slices.DeleteFunc(ThenKeys(), func(k string) bool { return k == "webhook" })...)
}

// Undecided is the expectation of an undecided request, in place of an effect.
const Undecided = "undecided"

func (f *File) readExpect(n *yamlfile.Node) Expectation {
	e := Expectation{Values: map[string]string{}}
	if yamlfile.IsScalar(n) {
		if n.Value == Undecided {
			e.Undecided = true
			return e
		}
		e.set("effect", string(f.effect(n, "effect")))
		return e
	}
	keys := f.Fields(n, "expect", decisionKeys()...)
	for _, key := range decisionKeys() {
		if at := keys.Get(key); at != nil {
			f.expectKey(&e, key, at)
		}
	}
	if len(e.Keys) == 0 && !e.Undecided {
		f.Invalid(n, "expect", "want at least one key")
	}
	return e
}

func (e *Expectation) set(key, value string) {
	e.Keys = append(e.Keys, key)
	e.Values[key] = value
}

func (f *File) expectKey(e *Expectation, key string, n *yamlfile.Node) {
	switch key {
	case "error":
		e.Undecided = true
		e.Reason, _ = f.Text(n, key, maxDoc)
	case "effect":
		e.set(key, string(f.effect(n, "effect")))
	case "ttl", "retry_after":
		d, _ := f.Duration(n, key, 0, 1<<62)
		e.set(key, d.String())
	case "soft_logout":
		e.set(key, strconv.FormatBool(f.Bool(n, key)))
	case "keep_sessions":
		count, _ := f.Int(n, key, 0, 10000)
		e.set(key, strconv.Itoa(count))
	case "caveats":
		var all []string
		for _, item := range f.texts(n, key, policy.MaxCaveats, policy.MaxCaveat) {
			all = append(all, item.Value)
		}
		e.set(key, policy.ListText(all))
	case "labels":
		labels := map[string]string{}
		for _, entry := range f.Entries(n, key) {
			labels[entry.Key], _ = f.Text(entry.Value, key, policy.MaxLabelValue)
		}
		e.set(key, policy.MapText(labels))
	default:
		s, _ := f.Text(n, key, maxDoc)
		e.set(key, s)
	}
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
		if d.Labels == nil {
			d.Labels = map[string]string{}
		}
		d.Labels[e.Key] = e.Value.Value
	}
	return webhook.Stub{Answer: webhook.Answer{Decision: d, Settled: true}}
}

// An Expectation is the expect of a test: parts of a decision, or an error.
type Expectation struct {
	Keys      []string          // expected parts, in the order of the documentation
	Values    map[string]string // by key, see [policy.Decision.Parts]
	Undecided bool              // want an undecided request
	Reason    string            // text in its error
}
