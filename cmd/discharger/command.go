package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// terminal is everything that a command touches beside files and the network.
type terminal struct {
	in        io.Reader
	out, err  io.Writer
	lookupEnv func(string) (string, bool)
	now       func() time.Time
}

// env is an environment variable, or a default if it is unset or empty.
func (t *terminal) env(name, def string) string {
	if v, ok := t.lookupEnv(name); ok && v != "" {
		return v
	}
	return def
}

// action is what a command does, once its flags are parsed. The arguments are
// those that are not flags.
type action func(ctx context.Context, args []string) error

// command is one subcommand.
type command struct {
	name  string // one word or two, as in "keys new"
	args  string // what may follow the flags
	about string // one line for the list of commands
	more  string // what else there is to say, with -h
	max   int    // how many arguments it takes at most

	hidden bool // not in the list of commands: only another command runs it

	// setup declares the flags and returns what to do when they are set.
	setup func(*terminal, *flag.FlagSet) action
}

func commands() []command {
	return []command{
		serveCommand(), gatewayCommand(), demoCommand(),
		keysInitCommand(), keysNewCommand(), keysListCommand(), keysUseCommand(), keysRetireCommand(), keysServiceCommand(),
		mintCommand(), attenuateCommand(), dischargeCommand(), refreshCommand(), logoutCommand(), verifyCommand(), inspectCommand(),
		sessionsListCommand(), sessionsRevokeCommand(), sessionsRevokeUserCommand(), sessionsRevokeDeviceCommand(),
		sessionsRevokeAllCommand(), sessionsMarksCommand(), sessionsWatchCommand(),
		policyCheckCommand(), policyTestCommand(), policyEvalCommand(), policyDiffCommand(),
		policyShowCommand(), policyFieldsCommand(), policySchemaCommand(), schemaCheckCommand(), schemaDocsCommand(),
		configCheckCommand(), configExampleCommand(), backupCommand(), restoreCommand(), healthCommand(), versionCommand(),
	}
}

// run runs what args name and returns the exit code.
func run(ctx context.Context, t *terminal, args []string) int {
	err := dispatch(ctx, t, args)
	t.report(err)
	return exitCode(err)
}

func dispatch(ctx context.Context, t *terminal, args []string) error {
	if len(args) == 0 {
		overview(t.err)
		return usagef("which command?")
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		overview(t.out)
		return nil
	}
	c, rest, err := find(args)
	if err != nil {
		return err
	}
	f := flag.NewFlagSet(c.name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // errors are printed by run, and help by help
	do := c.setup(t, f)
	positional, err := parse(f, rest)
	switch {
	case errors.Is(err, flag.ErrHelp):
		c.help(t.out, f)
		return nil
	case err != nil:
		return usagef("%s: %v; see discharger %s -h", c.name, err, c.name)
	case len(positional) > c.max:
		return usagef("%s: too many arguments; see discharger %s -h", c.name, c.name)
	}
	return do(ctx, positional)
}

// find takes the command off the arguments.
func find(args []string) (c command, rest []string, err error) {
	var group []string
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c, args[len(words):], nil
		}
		if words[0] == args[0] {
			group = append(group, c.name)
		}
	}
	if len(group) > 0 {
		return command{}, nil, usagef("%s does not stand alone: %s", args[0], strings.Join(group, ", "))
	}
	return command{}, nil, usagef("there is no command %q; see discharger help", args[0])
}

// parse parses flags wherever they stand: before, after and between the
// arguments. After "--" there are none. An id that begins with "-" is an argument
// still: of a session, as those of another maker may, or of a signing key.
func parse(f *flag.FlagSet, args []string) (positional []string, err error) {
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

func overview(w io.Writer) {
	fmt.Fprint(w, "discharger issues short-lived discharges for sessions, and stops when they end.\n\n")
	for _, c := range commands() {
		if c.hidden {
			continue
		}
		fmt.Fprintf(w, "  discharger %-22s %s\n", c.name, c.about)
	}
	fmt.Fprint(w, "\nEach explains itself with -h. To see what it is about: discharger demo\n")
}

func (c command) help(w io.Writer, f *flag.FlagSet) {
	fmt.Fprintf(w, "usage: discharger %s %s\n\n%s\n", c.name, c.args, c.about)
	if c.more != "" {
		fmt.Fprintf(w, "\n%s\n", strings.TrimSpace(c.more))
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
