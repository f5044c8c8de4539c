package rulefile

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"

	"github.com/discharger/discharger/config/yamlfile"
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
// input changes [policy.SampleInput]; times may be relative to now, as in
// session: {created: -90d}. expect has parts of the decision; the other parts may have any
// value. webhooks has the answers of webhooks.
type Test struct {
	Name   string
	At     *yamlfile.Node // position of the name
	Input  *policy.Input
	Hooks  map[string]webhook.Stub // by name of the webhook
	Expect Expectation
}

func (f *File) readTest(n *yamlfile.Node) *Test {
	t := &Test{At: n, Hooks: map[string]webhook.Stub{}}
	keys := f.Fields(n, "test", "name", "input", "webhooks", "expect")
	if at := keys.Require("name", ""); at != nil {
		t.Name, _ = f.Text(at, "name", maxEntry)
		t.At = at
	}
	t.Input = policy.SampleInput()
	if n := keys.Get("input"); n != nil {
		// The policy of the input is that of the test.
		t.Input = f.readInput(n, slices.DeleteFunc(cel.Fields(), func(fd cel.Field) bool { return fd.Name == "policy" }))
	}
	if hooks := keys.Get("webhooks"); hooks != nil {
		for _, e := range f.Entries(hooks, "webhooks") {
			t.Hooks[e.Key] = f.readStub(e.Value)
		}
	}
	if e := keys.Require("expect", ""); e != nil {
		t.Expect = f.readExpect(e)
	}
	return t
}

// ParseInput decodes an input in the form of tests in rule files: missing parts are those of
// [policy.SampleInput]. The JSON of an input in audit logs and webhook requests has this form
// too. An error is a [yamlfile.Problems] with name as the file.
func ParseInput(name string, data []byte) (*policy.Input, error) {
	f := newFile(name, data)
	in := policy.SampleInput()
	if f.Root != nil {
		in = f.readInput(f.Root, cel.Fields())
	}
	if err := f.Problems().Err(); err != nil {
		return nil, err
	}
	return in, nil
}

// readInput returns the sample input with the changes in a mapping.
func (f *File) readInput(n *yamlfile.Node, known []cel.Field) *policy.Input {
	patch, ok := f.patch(n, known)
	if !ok {
		return policy.SampleInput()
	}
	in, err := patch.apply()
	if err != nil {
		f.Invalid(n, "input", "%v", err)
		return policy.SampleInput()
	}
	return in
}

// An inputPatch has the changes of an input as values for encoding/json, by key.
type inputPatch struct {
	now    time.Time
	action policy.Action
	values map[string]any
}

// patch decodes the changes of an input.
func (f *File) patch(n *yamlfile.Node, known []cel.Field) (inputPatch, bool) {
	base := policy.SampleInput()
	p := inputPatch{now: base.Now, action: base.Action, values: map[string]any{}}
	before := f.Len()
	byKey := f.Fields(n, "input", cel.TopNames(known)...)
	if at := byKey.Get("now"); at != nil {
		if t, err := time.Parse(time.RFC3339Nano, at.Value); err != nil {
			f.Mistyped(at, "now", "a time such as 2026-03-02T12:00:00Z")
		} else {
			p.now = t.UTC()
		}
	}
	for _, fd := range known {
		if fd.Object == "" {
			if at := byKey.Get(fd.Name); at != nil && fd.Name != "now" {
				p.values[fd.Name] = f.value(at, &fd, p.now)
			}
		}
	}
	if a, ok := p.values["action"].(string); ok {
		p.action = policy.Action(a)
	}
	for _, object := range cel.Objects() {
		if at := byKey.Get(object); at != nil {
			f.patchObject(&p, at, object, known)
		}
	}
	return p, f.Len() == before
}

func (f *File) patchObject(p *inputPatch, n *yamlfile.Node, object string, known []cel.Field) {
	var names []string
	for _, fd := range known {
		if fd.Object == object {
			names = append(names, fd.Name)
		}
	}
	values := map[string]any{}
	byKey := f.Fields(n, object, names...)
	for i := range known {
		if fd := &known[i]; fd.Object == object && byKey.Get(fd.Name) != nil {
			values[fd.Name] = f.value(byKey.Get(fd.Name), fd, p.now)
		}
	}
	p.values[object] = values
}

// value decodes a field to a value for encoding/json.
func (f *File) value(n *yamlfile.Node, fd *cel.Field, now time.Time) any {
	path := fd.Path()
	switch fd.Type.Kind() {
	case types.TimestampKind:
		return f.moment(n, path, now)
	case types.DurationKind:
		d, _ := f.Duration(n, path, 0, 1<<62)
		return d.String()
	case types.BoolKind:
		return f.Bool(n, path)
	case types.IntKind:
		i, _ := f.Int(n, path, -1, 1<<53)
		return i
	case types.MapKind:
		labels := map[string]string{}
		if yamlfile.IsNull(n) {
			return labels // the JSON of a nil map
		}
		for _, e := range f.Entries(n, path) {
			labels[e.Key], _ = f.Text(e.Value, path+"."+e.Key, policy.MaxLabelValue)
		}
		return labels
	}
	if fd.Enum != nil {
		s, _ := f.OneOf(n, path, fd.Enum...)
		return s
	}
	s, _ := f.Text(n, path, int(fd.Size))
	return s
}

// moment decodes a time, absolute or relative to now.
func (f *File) moment(n *yamlfile.Node, path string, now time.Time) any {
	text, ok := f.Raw(n, path, momentForm)
	if !ok {
		return now
	}
	if strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
		if d, err := yamlfile.ParseDuration(text); err == nil {
			return now.Add(d).Format(time.RFC3339Nano)
		}
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		f.Mistyped(n, path, momentForm)
	}
	return t.UTC().Format(time.RFC3339Nano)
}

const momentForm = "a time such as 2026-03-02T12:00:00Z, or relative to now such as -90d"

// apply returns the changed sample input.
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
