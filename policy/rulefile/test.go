package rulefile

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"go.yaml.in/yaml/v3"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
	"github.com/discharger/discharger/policy/webhook"
)

// A Test is one test of a policy, in its rule file:
//
//   - name: at night from elsewhere
//     input: {now: 2026-03-02T22:00:00Z, request: {ip: 198.51.100.7}}
//     expect: {effect: deny, code: office_hours}
//
// input changes the [SampleInput]; times may be given relative to now, as in
// session: {created: -90d}. expect says what must be in the decision, and
// nothing about the rest. webhooks gives the answers of webhooks.
type Test struct {
	Name   string
	At     *yaml.Node
	Input  *policy.Input
	Hooks  map[string]webhook.Stub
	Expect Expectation
}

func (f *File) readTest(n *yaml.Node) *Test {
	t := &Test{At: n, Hooks: map[string]webhook.Stub{}}
	keys := f.keys(n, "a test", "name", "input", "webhooks", "expect")
	if at := keys["name"]; at == nil {
		f.ErrorAt(n, "the test has no name")
	} else {
		t.Name, _ = f.text(at, "name", maxEntry)
		t.At = at
	}
	t.Input = policy.SampleInput()
	if n := keys["input"]; n != nil {
		// The policy is the one that the test is of.
		t.Input = f.readInput(n, slices.DeleteFunc(cel.Fields(), func(fd cel.Field) bool { return fd.Name == "policy" }))
	}
	if hooks := keys["webhooks"]; hooks != nil {
		for _, e := range f.entries(hooks, "webhooks") {
			t.Hooks[e.Key] = f.readStub(e.Value)
		}
	}
	if e := keys["expect"]; e == nil {
		f.ErrorAt(n, "the test has no expect")
	} else {
		t.Expect = f.readExpect(e)
	}
	return t
}

// ParseInput reads an input from YAML or JSON, in the form that tests in rule
// files have: what is left out is as in [SampleInput]. The JSON of an [Input],
// as audit logs and webhooks have it, is such a form. name is the file's, for
// the error, which is a [Problems].
func ParseInput(name string, data []byte) (*policy.Input, error) {
	f := &File{source: &source{name: name}}
	in := policy.SampleInput()
	if root := f.parse(data); root != nil {
		in = f.readInput(root, cel.Fields())
	}
	if err := f.Problems().Err(); err != nil {
		return nil, err
	}
	return in, nil
}

// readInput applies a patch to the sample.
func (f *File) readInput(n *yaml.Node, known []cel.Field) *policy.Input {
	patch, ok := f.patch(n, known)
	if !ok {
		return policy.SampleInput()
	}
	in, err := patch.apply()
	if err != nil {
		f.ErrorAt(n, "input: %v", err)
		return policy.SampleInput()
	}
	return in
}

// An inputPatch holds, by path, values in JSON's terms.
type inputPatch struct {
	now    time.Time
	action policy.Action
	values map[string]any
}

// patch reads the fields of an input that a test gives.
func (f *File) patch(n *yaml.Node, known []cel.Field) (inputPatch, bool) {
	base := policy.SampleInput()
	p := inputPatch{now: base.Now, action: base.Action, values: map[string]any{}}
	before := len(f.problems)
	byKey := f.keys(n, "input", cel.TopNames(known)...)
	if at := byKey["now"]; at != nil {
		if t, err := time.Parse(time.RFC3339Nano, at.Value); err != nil {
			f.ErrorAt(at, "now is a time such as 2026-03-02T12:00:00Z, not %s", describe(at))
		} else {
			p.now = t.UTC()
		}
	}
	for _, fd := range known {
		if fd.Object == "" {
			if at := byKey[fd.Name]; at != nil && fd.Name != "now" {
				p.values[fd.Name] = f.value(at, &fd, p.now)
			}
		}
	}
	if a, ok := p.values["action"].(string); ok {
		p.action = policy.Action(a)
	}
	for _, object := range cel.Objects() {
		if at := byKey[object]; at != nil {
			f.patchObject(&p, at, object, known)
		}
	}
	return p, len(f.problems) == before
}

func (f *File) patchObject(p *inputPatch, n *yaml.Node, object string, known []cel.Field) {
	var names []string
	for _, fd := range known {
		if fd.Object == object {
			names = append(names, fd.Name)
		}
	}
	values := map[string]any{}
	byKey := f.keys(n, object, names...)
	for i := range known {
		if fd := &known[i]; fd.Object == object && byKey[fd.Name] != nil {
			values[fd.Name] = f.value(byKey[fd.Name], fd, p.now)
		}
	}
	p.values[object] = values
}

// value reads a field's value as JSON would hold it.
func (f *File) value(n *yaml.Node, fd *cel.Field, now time.Time) any {
	what := fd.Path()
	switch fd.Type.Kind() {
	case types.TimestampKind:
		return f.moment(n, what, now)
	case types.DurationKind:
		return f.duration(n, what, 0, 1<<62).String()
	case types.BoolKind:
		return f.flag(n, what)
	case types.IntKind:
		return f.number(n, what, -1, 1<<53)
	case types.MapKind:
		labels := map[string]string{}
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
			return labels // as a nil map is written
		}
		for _, e := range f.entries(n, what) {
			labels[e.Key], _ = f.text(e.Value, "the label "+e.Key, policy.MaxLabelValue)
		}
		return labels
	}
	s, ok := f.text(n, what, int(fd.Size))
	if ok && fd.Enum != nil && !slices.Contains(fd.Enum, s) {
		f.ErrorAt(n, "%s is never %.60q; it is one of %s", what, s, strings.Join(fd.Enum, ", "))
	}
	return s
}

// moment reads a time: absolute, or relative to now.
func (f *File) moment(n *yaml.Node, what string, now time.Time) any {
	if n.Kind == yaml.ScalarNode && (strings.HasPrefix(n.Value, "-") || strings.HasPrefix(n.Value, "+")) {
		if d, err := policy.ParseDuration(strings.TrimPrefix(n.Value, "+")); err == nil {
			return now.Add(d).Format(time.RFC3339Nano)
		}
	}
	t, err := time.Parse(time.RFC3339Nano, n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		f.ErrorAt(n, "%s is a time such as 2026-03-02T12:00:00Z, or one relative to now such as -90d, not %s", what, describe(n))
		return now.Format(time.RFC3339Nano)
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// apply changes the sample.
func (p inputPatch) apply() (*policy.Input, error) {
	in := policy.Sample(p.now, p.action)
	data, err := json.Marshal(p.values)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, in); err != nil {
		return nil, err
	}
	return in, nil
}
