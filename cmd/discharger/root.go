package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/discharger/discharger/cmd/discharger/backup"
	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/demo"
	"github.com/discharger/discharger/cmd/discharger/gatewayd"
	"github.com/discharger/discharger/cmd/discharger/keys"
	"github.com/discharger/discharger/cmd/discharger/policies"
	"github.com/discharger/discharger/cmd/discharger/serve"
	"github.com/discharger/discharger/cmd/discharger/sessions"
	"github.com/discharger/discharger/cmd/discharger/tokens"
)

func commands() []command.Command {
	return []command.Command{
		serve.Command(), gatewayd.Command(), demo.Command(),
		keys.InitCommand(), keys.NewCommand(), keys.ListCommand(), keys.UseCommand(), keys.RetireCommand(), keys.ServiceCommand(),
		tokens.MintCommand(), tokens.AttenuateCommand(), tokens.DischargeCommand(), tokens.RefreshCommand(), tokens.LogoutCommand(), tokens.VerifyCommand(), tokens.InspectCommand(),
		sessions.ListCommand(), sessions.RevokeCommand(), sessions.RevokeUserCommand(), sessions.RevokeDeviceCommand(),
		sessions.RevokeAllCommand(), sessions.MarksCommand(), sessions.WatchCommand(),
		policies.CheckCommand(), policies.TestCommand(), policies.EvalCommand(), policies.DiffCommand(),
		policies.ShowCommand(), policies.FieldsCommand(), policies.SchemaCommand(), policies.SchemaCheckCommand(), policies.SchemaDocsCommand(),
		configCheckCommand(), configExampleCommand(), backup.Command(), backup.RestoreCommand(), healthCommand(), versionCommand(),
	}
}

// run runs what args name and returns the exit code.
func run(ctx context.Context, t *command.Terminal, args []string) int {
	err := dispatch(ctx, t, args)
	t.Report(err)
	return command.ExitCode(err)
}

func dispatch(ctx context.Context, t *command.Terminal, args []string) error {
	if len(args) == 0 {
		overview(t.Err)
		return command.Usagef("which command?")
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		overview(t.Out)
		return nil
	}
	c, rest, err := find(args)
	if err != nil {
		return err
	}
	f := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // errors are printed by run, and help by help
	do := c.Setup(t, f)
	positional, err := command.Parse(f, rest)
	switch {
	case errors.Is(err, flag.ErrHelp):
		c.Help(t.Out, f)
		return nil
	case err != nil:
		return command.Usagef("%s: %v; see discharger %s -h", c.Name, err, c.Name)
	case len(positional) > c.Max:
		return command.Usagef("%s: too many arguments; see discharger %s -h", c.Name, c.Name)
	}
	return do(ctx, positional)
}

// find takes the command off the arguments.
func find(args []string) (c command.Command, rest []string, err error) {
	var group []string
	for _, c := range commands() {
		words := strings.Fields(c.Name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return c, args[len(words):], nil
		}
		if words[0] == args[0] {
			group = append(group, c.Name)
		}
	}
	if len(group) > 0 {
		return command.Command{}, nil, command.Usagef("%s does not stand alone: %s", args[0], strings.Join(group, ", "))
	}
	return command.Command{}, nil, command.Usagef("there is no command %q; see discharger help", args[0])
}

func overview(w io.Writer) {
	fmt.Fprint(w, "discharger issues short-lived discharges for sessions, and stops when they end.\n\n")
	for _, c := range commands() {
		if c.Hidden {
			continue
		}
		fmt.Fprintf(w, "  discharger %-22s %s\n", c.Name, c.Short)
	}
	fmt.Fprint(w, "\nEach explains itself with -h. To see what it is about: discharger demo\n")
}
