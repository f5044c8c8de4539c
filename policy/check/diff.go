package check

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
	"github.com/discharger/discharger/policy/rulefile"
	"github.com/discharger/discharger/policy/rules"
	"github.com/discharger/discharger/policy/webhook"
)

// A DiffReport is a list of recorded decisions that another set changes.
type DiffReport struct {
	Records int      // decisions read
	Dropped int      // decisions lost according to the log
	Changes []Change // the most frequent first

	// Undetermined counts records without a second decision by reason: a rule has a
	// webhook, or reads user.sessions and the record has no number.
	Undetermined map[string]int

	// Unreadable are the first lines without a valid record;
	// UnreadableLines counts all of them.
	Unreadable      []LineError
	UnreadableLines int
}

// A Change is a group of records with the same change.
type Change struct {
	Old, New string   // effect, or undecided
	OldRule  string   // as policy/rule
	NewRule  string   // as policy/rule
	Keys     []string // parts of the decision that differ, see [policy.Decision.Parts]
	Count    int      // records
	Lines    []int    // of the first few records in the log
}

// A LineError is the error of an invalid line of an audit log.
type LineError struct {
	Line int
	Err  error
}

const (
	maxLogLine  = 64 << 10
	maxExamples = 5
)

// Diff evaluates every input of an audit log with two sets and reports the differences. A
// nil old stands for the recorded decisions. It calls no webhook.
func Diff(ctx context.Context, old, new *rules.Set, log io.Reader) (*DiffReport, error) {
	report := &DiffReport{Undetermined: map[string]int{}}
	groups := map[string]*Change{}
	lines := bufio.NewReaderSize(log, maxLogLine)
	ctx = webhook.WithStubs(ctx, nil)
	for n := 1; ; n++ {
		line, long, err := lines.ReadLine()
		for rest := long; rest && err == nil; {
			_, rest, err = lines.ReadLine()
		}
		if errors.Is(err, io.EOF) && !long {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read audit log: line %d: %w", n, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if long {
			report.unreadable(n, fmt.Errorf("more than %d bytes", maxLogLine))
		} else if len(bytes.TrimSpace(line)) > 0 {
			report.add(ctx, old, new, n, line, groups)
		}
	}
	for _, c := range groups {
		report.Changes = append(report.Changes, *c)
	}
	slices.SortFunc(report.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Lines[0], b.Lines[0]))
	})
	return report, nil
}

func (r *DiffReport) unreadable(line int, err error) {
	r.UnreadableLines++
	if len(r.Unreadable) < maxExamples {
		r.Unreadable = append(r.Unreadable, LineError{line, err})
	}
}

// add compares the decisions about one record.
func (r *DiffReport) add(ctx context.Context, old, new *rules.Set, n int, line []byte, groups map[string]*Change) {
	var record AuditRecord
	if err := json.Unmarshal(line, &record); err != nil {
		r.unreadable(n, err)
		return
	}
	if record.Dropped > 0 && record.Input == nil {
		r.Dropped += record.Dropped
		return
	}
	if record.Version != 1 || record.Input == nil || record.Decision == nil && record.Error == "" {
		r.unreadable(n, errors.New("record is not of version 1"))
		return
	}
	r.Records++
	was := verdict{undecided: true}
	if old != nil {
		was = verdictOf(policy.Ask(ctx, old, record.Input))
	} else if record.Decision != nil {
		was = verdict{Decision: *record.Decision}
	}
	is := verdictOf(policy.Ask(ctx, new, record.Input))
	for _, v := range []verdict{was, is} {
		if v.undetermined != "" {
			r.Undetermined[v.undetermined]++
			return
		}
	}
	keys := was.differences(is)
	if len(keys) == 0 {
		return
	}
	change := Change{Old: was.effect(), New: is.effect(), OldRule: was.Rule, NewRule: is.Rule, Keys: keys}
	id := fmt.Sprint(change)
	g, ok := groups[id]
	if !ok {
		g = &change
		groups[id] = g
	}
	g.Count++
	if len(g.Lines) < maxExamples {
		g.Lines = append(g.Lines, n)
	}
}

// A verdict is a decision, undecided, or undetermined.
type verdict struct {
	policy.Decision
	undecided    bool
	undetermined string // reason; "": determined
}

func verdictOf(d policy.Decision, err error) verdict {
	var unset *cel.UnsetError
	switch {
	case errors.Is(err, webhook.ErrOffline):
		return verdict{undetermined: "a webhook decides"}
	case errors.As(err, &unset) && unset.Path == cel.SessionsPath:
		return verdict{undetermined: "user.sessions is unknown"}
	case err != nil:
		return verdict{undecided: true}
	}
	return verdict{Decision: d}
}

func (v verdict) effect() string { return cmp.Or(string(v.Effect), rulefile.Undecided) }

// differences returns the parts in which two verdicts differ; the rule is not among them.
func (v verdict) differences(o verdict) []string {
	if v.undecided && o.undecided {
		return nil
	}
	if v.undecided != o.undecided {
		return []string{"effect"}
	}
	a, b := v.Parts(), o.Parts()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(a)), func(key string) bool { return a[key] == b[key] })
}

// Changed returns the number of records with a changed decision.
func (r *DiffReport) Changed() int {
	n := 0
	for _, c := range r.Changes {
		n += c.Count
	}
	return n
}

// WriteTo writes the changes, the most frequent first, and
// the records without a comparison.
func (r *DiffReport) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d of %d decisions change\n", r.Changed(), r.Records)
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "%7d  %s → %s", c.Count, c.Old, c.New)
		if c.Old == c.New {
			fmt.Fprintf(&b, " with another %s", strings.Join(c.Keys, ", "))
		}
		was, is := cmp.Or(c.OldRule, rulefile.Undecided), cmp.Or(c.NewRule, rulefile.Undecided)
		fmt.Fprintf(&b, "  (%s → %s; %s %s)\n", was, is, plural(len(c.Lines), "line"), joinInts(c.Lines))
	}
	for _, reason := range slices.Sorted(maps.Keys(r.Undetermined)) {
		fmt.Fprintf(&b, "%7d  undetermined: %s\n", r.Undetermined[reason], reason)
	}
	if r.Dropped > 0 {
		fmt.Fprintf(&b, "%7d  lost according to the log\n", r.Dropped)
	}
	if r.UnreadableLines > 0 {
		fmt.Fprintf(&b, "%7d  unreadable %s\n", r.UnreadableLines, plural(r.UnreadableLines, "line"))
		for _, e := range r.Unreadable {
			fmt.Fprintf(&b, "         line %d: %v\n", e.Line, e.Err)
		}
	}
	return b.WriteTo(w)
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func joinInts(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = fmt.Sprint(n)
	}
	return strings.Join(words, ", ")
}
