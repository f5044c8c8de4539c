// Package command is the frame of the commands: [Command] declares one, [Terminal]
// has its streams, and [ExitCode] turns its error into an exit code.
//
// A command that fails returns an error, and never prints or exits itself. An error
// that matches [ErrConfig] or [ErrUnavailable], or was made by [Usagef], selects the
// exit code; [Mark] makes an error match without changing its text. Text from outside
// is printed by way of [Quoted] or [Plain], so that no control character reaches the
// terminal.
package command

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/discharger/discharger/discharger/caveat"
)

// action is what a command does, once its flags are parsed. The arguments are
// those that are not flags.
type Action func(ctx context.Context, args []string) error

// command is one subcommand.
type Command struct {
	Name  string // one word or two, as in "keys new"
	Args  string // what may follow the flags
	Short string // one line for the list of commands
	Long  string // what else there is to say, with -h
	Max   int    // how many arguments it takes at most

	Hidden bool // not in the list of commands: only another command runs it

	// setup declares the flags and returns what to do when they are set.
	Setup func(*Terminal, *flag.FlagSet) Action
}

// parse parses flags wherever they stand: before, after and between the
// arguments. After "--" there are none. An id that begins with "-" is an argument
// still: of a session, as those of another maker may, or of a signing key.
func Parse(f *flag.FlagSet, args []string) (positional []string, err error) {
	for {
		if err := f.Parse(args); err != nil {
			refused := len(args) - f.NArg() - 1
			if refused < 0 {
				return nil, err
			}
			if !isID(args[refused]) {
				return nil, err
			}
			positional, args = append(positional, args[refused]), f.Args()
			continue
		}
		if f.NArg() == 0 {
			return positional, nil
		}
		if parsed := len(args) - f.NArg(); parsed > 0 && args[parsed-1] == "--" {
			return append(positional, f.Args()...), nil
		}
		positional = append(positional, f.Arg(0))
		args = f.Args()[1:]
	}
}

// isID reports whether a text has the form of the id of a session or of a signing
// key, in base64url.
func isID(text string) bool {
	if _, err := caveat.ParseSessionID(text); err == nil {
		return true
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return err == nil && len(b) == sha256.Size
}

func (c Command) Help(w io.Writer, f *flag.FlagSet) {
	fmt.Fprintf(w, "usage: discharger %s %s\n\n%s\n", c.Name, c.Args, c.Short)
	if c.Long != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.Long))
	}
	first := true
	f.VisitAll(func(fl *flag.Flag) {
		if first {
			fmt.Fprint(w, "\nFlags:\n")
			first = false
		}
		name, usage := flag.UnquoteUsage(fl)
		dashes := "--"
		if len(fl.Name) == 1 {
			dashes = "-"
		}
		if fl.DefValue != "" && fl.DefValue != "false" && fl.DefValue != "0s" {
			usage += " (default " + fl.DefValue + ")"
		}
		fmt.Fprintf(w, "  %-26s %s\n", strings.TrimSpace(dashes+fl.Name+" "+name), usage)
	})
}
