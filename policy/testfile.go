package policy

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"go.yaml.in/yaml/v3"
)

// A testDef is one test of a policy, in its rule file:
//
//   - name: at night from elsewhere
//     input: {now: 2026-03-02T22:00:00Z, request: {ip: 198.51.100.7}}
//     expect: {effect: deny, code: office_hours}
//
// input changes the [SampleInput]; times may be given relative to now, as in
// session: {created: -90d}. expect says what must be in the decision, and
// nothing about the rest. webhooks gives the answers of webhooks.
type testDef struct {
	name   string
	at     *yaml.Node
	input  *Input
	hooks  hookStubs
	expect expectation
}

func (f *fileDef) readTest(n *yaml.Node) *testDef {
	t := &testDef{at: n, hooks: hookStubs{}}
	keys := f.src.keys(n, "a test", "name", "input", "webhooks", "expect")
	if at := keys["name"]; at == nil {
		f.src.errorAt(n, "the test has no name")
	} else {
		t.name, _ = f.src.text(at, "name", maxEntry)
		t.at = at
	}
	t.input = SampleInput()
	if n := keys["input"]; n != nil {
		// The policy is the one that the test is of.
		t.input = f.readInput(n, slices.DeleteFunc(inputFields(), func(fd field) bool { return fd.name == "policy" }))
	}
	if hooks := keys["webhooks"]; hooks != nil {
		for _, e := range f.src.entries(hooks, "webhooks") {
			t.hooks[e.key] = f.readStub(e.value)
		}
	}
	if e := keys["expect"]; e == nil {
		f.src.errorAt(n, "the test has no expect")
	} else {
		t.expect = f.readExpect(e)
	}
	return t
}

// ParseInput reads an input from YAML or JSON, in the form that tests in rule
// files have: what is left out is as in [SampleInput]. The JSON of an [Input],
// as audit logs and webhooks have it, is such a form. name is the file's, for
// the error, which is a [Problems].
func ParseInput(name string, data []byte) (*Input, error) {
	f := &fileDef{src: &source{name: name}}
	in := SampleInput()
	if root := f.src.parse(data); root != nil {
		in = f.readInput(root, inputFields())
	}
	if err := f.src.result().err(); err != nil {
		return nil, err
	}
	return in, nil
}

// readInput applies a patch to the sample.
func (f *fileDef) readInput(n *yaml.Node, known []field) *Input {
	patch, ok := f.patch(n, known)
	if !ok {
		return SampleInput()
	}
	in, err := patch.apply()
	if err != nil {
		f.src.errorAt(n, "input: %v", err)
		return SampleInput()
	}
	return in
}

// An inputPatch holds, by path, values in JSON's terms.
type inputPatch struct {
	now    time.Time
	action Action
	values map[string]any
}

// patch reads the fields of an input that a test gives.
func (f *fileDef) patch(n *yaml.Node, known []field) (inputPatch, bool) {
	base := SampleInput()
	p := inputPatch{now: base.Now, action: base.Action, values: map[string]any{}}
	before := len(f.src.problems)
	byKey := f.src.keys(n, "input", topNames(known)...)
	if at := byKey["now"]; at != nil {
		if t, err := time.Parse(time.RFC3339Nano, at.Value); err != nil {
			f.src.errorAt(at, "now is a time such as 2026-03-02T12:00:00Z, not %s", describe(at))
		} else {
			p.now = t.UTC()
		}
	}
	for _, fd := range known {
		if fd.object == "" {
			if at := byKey[fd.name]; at != nil && fd.name != "now" {
				p.values[fd.name] = f.value(at, &fd, p.now)
			}
		}
	}
	if a, ok := p.values["action"].(string); ok {
		p.action = Action(a)
	}
	for _, object := range objects() {
		if at := byKey[object]; at != nil {
			f.patchObject(&p, at, object, known)
		}
	}
	return p, len(f.src.problems) == before
}

func (f *fileDef) patchObject(p *inputPatch, n *yaml.Node, object string, known []field) {
	var names []string
	for _, fd := range known {
		if fd.object == object {
			names = append(names, fd.name)
		}
	}
	values := map[string]any{}
	byKey := f.src.keys(n, object, names...)
	for i := range known {
		if fd := &known[i]; fd.object == object && byKey[fd.name] != nil {
			values[fd.name] = f.value(byKey[fd.name], fd, p.now)
		}
	}
	p.values[object] = values
}

func topNames(known []field) []string {
	names := objects()
	for _, f := range known {
		if f.object == "" {
			names = append(names, f.name)
		}
	}
	return names
}

// value reads a field's value as JSON would hold it.
func (f *fileDef) value(n *yaml.Node, fd *field, now time.Time) any {
	what := fd.path()
	switch fd.typ.Kind() {
	case types.TimestampKind:
		return f.moment(n, what, now)
	case types.DurationKind:
		return f.duration(n, what, 0, 1<<62).String()
	case types.BoolKind:
		return f.src.flag(n, what)
	case types.IntKind:
		return f.src.number(n, what, -1, 1<<53)
	case types.MapKind:
		labels := map[string]string{}
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
			return labels // as a nil map is written
		}
		for _, e := range f.src.entries(n, what) {
			labels[e.key], _ = f.src.text(e.value, "the label "+e.key, maxLabelValue)
		}
		return labels
	}
	s, ok := f.src.text(n, what, int(fd.size))
	if ok && fd.enum != nil && !slices.Contains(fd.enum, s) {
		f.src.errorAt(n, "%s is never %q; it is one of %s", what, shorten(s), strings.Join(fd.enum, ", "))
	}
	return s
}

// moment reads a time: absolute, or relative to now.
func (f *fileDef) moment(n *yaml.Node, what string, now time.Time) any {
	if n.Kind == yaml.ScalarNode && (strings.HasPrefix(n.Value, "-") || strings.HasPrefix(n.Value, "+")) {
		if d, err := parseDuration(strings.TrimPrefix(n.Value, "+")); err == nil {
			return now.Add(d).Format(time.RFC3339Nano)
		}
	}
	t, err := time.Parse(time.RFC3339Nano, n.Value)
	if err != nil || n.Kind != yaml.ScalarNode {
		f.src.errorAt(n, "%s is a time such as 2026-03-02T12:00:00Z, or one relative to now such as -90d, not %s", what, describe(n))
		return now.Format(time.RFC3339Nano)
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// apply changes the sample.
func (p inputPatch) apply() (*Input, error) {
	in := sample(p.now, p.action)
	data, err := json.Marshal(p.values)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, in); err != nil {
		return nil, err
	}
	return in, nil
}
