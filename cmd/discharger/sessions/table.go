package sessions

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/wire"
)

// writeJSON writes a value to standard output.
func writeJSON(t *command.Terminal, v any) error {
	b, err := json.Marshal(v, jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return t.Output("", string(b))
}

// writeSessions writes a table of sessions, with the names of clients escaped.
func writeSessions(t *command.Terminal, list []wire.SessionInfo) error {
	if len(list) == 0 {
		t.Say("no sessions")
		return nil
	}
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tDEVICE\tLAST USED\tFROM\tCLIENT\tLOGGED IN\tMODE\tEPOCH\tPOLICY")
	for _, s := range list {
		from := "-"
		if s.LastIP.IsValid() {
			from = s.LastIP.String()
		}
		epoch := "-"
		if s.Mode == "rotate" {
			epoch = fmt.Sprint(s.Epoch)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, cell(s.Device), ago(t.Now(), s.LastUsed), from,
			cell(s.LastClient), ago(t.Now(), s.Created), cell(s.Mode), epoch, cell(s.Policy))
	}
	return w.Flush()
}

// writeEnded writes a table of sessions that ended.
func writeEnded(t *command.Terminal, list []wire.EndedSession) error {
	if len(list) == 0 {
		t.Say("no ended sessions")
		return nil
	}
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tDEVICE\tENDED\tKIND\tREASON")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.ID, cell(s.Device), ago(t.Now(), s.At), cell(s.Kind), cell(s.Reason))
	}
	return w.Flush()
}

// cell returns a text from outside for a column of a table.
func cell(s string) string {
	const most = 40
	if s == "" {
		return "-"
	}
	s = command.Quoted(s)
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// ago returns the time since then in its largest unit.
func ago(now, then time.Time) string {
	d := now.Sub(then)
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		switch n := int(d / unit.length); {
		case n == 1:
			return "1 " + unit.name + " ago"
		case n > 1:
			return fmt.Sprintf("%d %ss ago", n, unit.name)
		}
	}
	return "just now"
}
