package policy

import (
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// decisionKeys are what a test can expect of a decision.
func decisionKeys() []string {
	return append([]string{"rule", "error"}, slices.DeleteFunc(thenKeys(), func(k string) bool { return k == "webhook" })...)
}

// undecided stands for an evaluation that fails.
const undecided = "undecided"

func (f *fileDef) readExpect(n *yaml.Node) expectation {
	e := expectation{values: map[string]string{}}
	if n.Kind == yaml.ScalarNode {
		if n.Value == undecided {
			e.undecided = true
			return e
		}
		e.set("effect", string(f.effect(n)))
		return e
	}
	keys := f.src.keys(n, "expect", decisionKeys()...)
	for _, key := range decisionKeys() {
		if keys[key] != nil {
			f.expectKey(&e, key, keys[key])
		}
	}
	if len(e.keys) == 0 && !e.undecided {
		f.src.errorAt(n, "expect expects nothing")
	}
	return e
}

func (e *expectation) set(key, value string) {
	e.keys = append(e.keys, key)
	e.values[key] = value
}

func (f *fileDef) expectKey(e *expectation, key string, n *yaml.Node) {
	switch key {
	case "error":
		e.undecided = true
		e.reason, _ = f.src.text(n, key, maxDoc)
	case "effect":
		e.set(key, string(f.effect(n)))
	case "ttl", "retry_after":
		e.set(key, f.duration(n, key, 0, 1<<62).String())
	case "soft_logout":
		e.set(key, strconv.FormatBool(f.src.flag(n, key)))
	case "keep_sessions":
		e.set(key, strconv.Itoa(f.src.number(n, key, 0, 10000)))
	case "caveats":
		var all []string
		for _, item := range f.src.items(n, key, maxCaveats) {
			s, _ := f.src.text(item, "a caveat", maxCaveat)
			all = append(all, s)
		}
		e.set(key, listText(all))
	case "labels":
		labels := map[string]string{}
		for _, entry := range f.src.entries(n, key) {
			labels[entry.key], _ = f.src.text(entry.value, "a label", maxLabelValue)
		}
		e.set(key, labelsText(labels))
	default:
		s, _ := f.src.text(n, key, maxDoc)
		e.set(key, s)
	}
}

// readStub reads what a webhook answers in a test.
func (f *fileDef) readStub(n *yaml.Node) hookStub {
	if n.Kind == yaml.ScalarNode {
		switch n.Value {
		case "unavailable":
			return hookStub{err: fmt.Errorf("the test makes it unavailable")}
		case "no_opinion":
			return hookStub{}
		}
		return hookStub{answer: answer{Decision{Effect: f.effect(n)}, true}}
	}
	t := f.readThen(n, "the webhook's answer")
	d := t.constant
	if t.webhook != "" {
		f.src.errorAt(n, "a webhook cannot answer with a webhook")
	}
	if t.ttl != nil {
		d.TTL = f.duration(t.ttl, "ttl", minTTL, 1<<62)
	}
	for _, c := range t.caveats {
		s, _ := f.src.text(c, "a caveat", maxCaveat)
		d.Caveats = append(d.Caveats, s)
	}
	for _, e := range t.labels {
		if d.Labels == nil {
			d.Labels = map[string]string{}
		}
		d.Labels[e.key], _ = f.src.text(e.value, "a label", maxLabelValue)
	}
	return hookStub{answer: answer{d, true}}
}

// An expectation is what a test expects, by key; see observed.
type expectation struct {
	keys      []string
	values    map[string]string
	undecided bool
	reason    string // text that the error must have in it
}
