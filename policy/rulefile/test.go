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
	for _, e := range f.Entries(keys.Get("webhooks"), "webhooks") {
		t.Hooks[e.Key] = f.readStub(e.Value)
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
	sample := policy.SampleInput()
	now, action := sample.Now, sample.Action
	before := f.Len()
	keys := f.Fields(n, "input", append(cel.Objects(), cel.Names(known, "")...)...)
	if at := keys.Get("now"); at != nil {
		if t, err := time.Parse(time.RFC3339Nano, at.Value); err != nil {
			f.Mistyped(at, "now", "a time such as 2026-03-02T12:00:00Z")
		} else {
			now = t.UTC()
		}
	}
	values := f.values(keys, "", known, now)
	if a, ok := values["action"].(string); ok {
		action = policy.Action(a)
	}
	for _, object := range cel.Objects() {
		if at := keys.Get(object); at != nil {
			values[object] = f.values(f.Fields(at, object, cel.Names(known, object)...), object, known, now)
		}
	}
	in := policy.Sample(now, action)
	data, err := json.Marshal(values)
	if err == nil {
		err = json.Unmarshal(data, in)
	}
	if err != nil {
		f.Invalid(n, "input", "%v", err)
	}
	if f.Len() > before {
		return sample
	}
	return in
}

// values decodes the fields of an object, or those without one but now, to values for
// encoding/json.
func (f *File) values(keys *yamlfile.Fields, object string, known []cel.Field, now time.Time) map[string]any {
	values := map[string]any{}
	for i := range known {
		fd := &known[i]
		if at := keys.Get(fd.Name); at != nil && fd.Object == object && fd.Path() != "now" {
			values[fd.Name] = f.value(at, fd, now)
		}
	}
	return values
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
		if yamlfile.IsNull(n) {
			return map[string]string{} // the JSON of a nil map
		}
		return f.labels(n, path)
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
