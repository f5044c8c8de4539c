package policies

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/policy"
)

func evalCommand() command.Command {
	return command.Command{
		Name: "policy eval", Args: "[flags] [file...]", Short: "Decide about one request, described by flags.", Max: manyFiles,
		Example: "discharger policy eval --explain --set request.ip=203.0.113.7 policy.yaml",
		Long: `
Decides with rule files, with those of the configuration, or with the built-in
policies, and prints the decision as JSON. The request is an ordinary refresh, with
the changes of --input and --set:

  discharger policy eval --explain --set request.ip=203.0.113.7 \
      --set session.labels.role=admin policy.yaml

"discharger policy fields" lists the fields. With another time, the sample's session
keeps its age; with the action activate, it begins at that time. A line of an audit
log is an input too. Exit code 3: undecided.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			e := evaluation{t: t, files: declarePolicyFiles(t, f), set: make(map[string]any)}
			f.StringVar(&e.policy, "policy", "", "`name` of the policy, instead of the input's, which is \"default\"")
			f.StringVar(&e.input, "input", "", "JSON `file` with an input or parts of one; - is standard input")
			f.Func("set", "set one `field=value` of the input; repeatable", e.assign)
			f.BoolVar(&e.explain, "explain", false, "print the evaluation of each rule")
			f.BoolVar(&e.ask, "ask-webhooks", false, "call webhooks; without, a rule with a webhook is undecided")
			return e.run
		},
	}
}

// evaluation is one run of policy eval.
type evaluation struct {
	t       *command.Terminal
	files   *policyFiles
	policy  string
	input   string
	set     map[string]any // in JSON's terms
	explain bool
	ask     bool
}

// assign parses a --set flag. Labels are text; numbers and truth values of other fields
// are parsed as such.
func (e *evaluation) assign(text string) error {
	path, value, ok := strings.Cut(text, "=")
	if !ok || path == "" {
		return fmt.Errorf("want field=value, got %q", text)
	}
	names := strings.SplitN(path, ".", 3)
	if len(names) == 3 && (names[0] != "session" || names[1] != "labels") {
		return fmt.Errorf("no field %q", path)
	}
	object := e.set
	for _, name := range names[:len(names)-1] {
		inner, ok := object[name].(map[string]any)
		if !ok {
			inner = make(map[string]any)
			object[name] = inner
		}
		object = inner
	}
	var parsed any = value
	if len(names) < 3 {
		var number json.Number
		var truth bool
		if json.Unmarshal([]byte(value), &number) == nil && value != "" && value[0] != '"' {
			parsed = number
		} else if json.Unmarshal([]byte(value), &truth) == nil {
			parsed = truth
		}
	}
	object[names[len(names)-1]] = parsed
	return nil
}

func (e *evaluation) run(ctx context.Context, args []string) error {
	in, err := e.request(args)
	if err != nil {
		return err
	}
	load, err := e.files.load(args)
	if err != nil {
		return err
	}
	load.Offline = !e.ask
	set, err := loadRules(load)
	if err != nil {
		return err
	}
	if e.policy != "" {
		in.Policy = e.policy
	}
	if e.explain {
		x := set.Explain(ctx, in)
		if _, err := x.WriteTo(e.t.Out); err != nil {
			return err
		}
		return command.Mark(x.Err, command.ErrUnavailable)
	}
	d, err := policy.Ask(ctx, set, in)
	if err != nil {
		return command.Mark(fmt.Errorf("undecided: %w", err), command.ErrUnavailable)
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return e.t.Output("", string(text))
}

// request returns the sample with the changes of file and flags.
func (e *evaluation) request(args []string) (*policy.Input, error) {
	patches := make([][]byte, 0, 2)
	if e.input != "" {
		data, err := e.t.Input([]string{e.input})
		if err != nil {
			return nil, err
		}
		var record struct {
			Input json.RawMessage `json:"input"`
		}
		if err := json.Unmarshal(data, &record); err == nil && record.Input != nil {
			data = record.Input // a line of an audit log
		}
		patches = append(patches, data)
	}
	data, err := json.Marshal(e.set)
	if err != nil {
		return nil, err
	}
	patches = append(patches, data)
	in, err := sampleFor(patches)
	if err != nil {
		return nil, err
	}
	for _, patch := range patches {
		if err := overlayJSON(in, patch); err != nil {
			return nil, fmt.Errorf("input: %w", err)
		}
	}
	return in, nil
}

// sampleFor returns the sample at the time and for the action of the patches.
func sampleFor(patches [][]byte) (*policy.Input, error) {
	in := policy.SampleInput()
	at := struct {
		Now    time.Time     `json:"now"`
		Action policy.Action `json:"action"`
	}{in.Now, in.Action}
	for _, patch := range patches {
		if err := json.Unmarshal(patch, &at); err != nil {
			return nil, fmt.Errorf("input: %w", err)
		}
	}
	s, later := &in.Session, at.Now.Sub(in.Now)
	s.Minted, s.Created, s.LastUsed = s.Minted.Add(later), s.Created.Add(later), s.LastUsed.Add(later)
	if at.Action == policy.ActionActivate {
		s.Minted, s.Created, s.LastUsed, s.Epoch = at.Now, at.Now, at.Now, 0
	}
	return in, nil
}

// overlayJSON sets the fields of a patch. An unknown field is an error.
func overlayJSON(in *policy.Input, patch []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(patch))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(in); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return fmt.Errorf("trailing data after the input")
	}
	return nil
}
