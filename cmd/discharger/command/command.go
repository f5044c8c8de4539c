// Package command is the frame of the commands: a [Command] declares one, a
// [Program] is the tree of all, a [Terminal] has the streams, and [ExitCode] turns
// an error into an exit code.
//
// A command that fails returns an error, and never prints or exits itself. An error
// that matches [ErrConfig] or [ErrUnavailable], or was made by [Usagef], selects the
// exit code; [Mark] makes an error match without changing its text. Text from outside
// is printed by way of [Quoted] or [Plain], so that no control character reaches the
// terminal.
//
// Flags may stand before, after and between the arguments; "--" ends them. Long flags
// have two dashes. Every command has --help, and every long flag with one dash, every
// unknown flag and every unknown command is an error that names the right spelling.
package command

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Action runs a command after its flags have been parsed. The arguments are those
// that are not flags.
type Action func(ctx context.Context, args []string) error

// Command declares one command.
type Command struct {
	Name    string // one word or two, as in "keys new"
	Args    string // flags and arguments, for the line of usage
	Short   string // one line for lists of commands
	Long    string // the description below it
	Example string // command lines, one per line
	Hidden  bool   // not listed

	Needs []string // names of the arguments that must be there
	Max   int      // the most arguments that the command takes

	// Setup declares the flags and returns the action, which runs when they are set.
	Setup func(*Terminal, *pflag.FlagSet) Action

	// Values has the values of flags for completion, by name of the flag.
	Values map[string][]string

	// Complete returns the values of the next argument for completion; nil: files.
	Complete func(t *Terminal, f *pflag.FlagSet, args []string) []string
}

// NoFlags returns the Setup of a command without flags.
func NoFlags(run func(ctx context.Context, t *Terminal, args []string) error) func(*Terminal, *pflag.FlagSet) Action {
	return func(t *Terminal, _ *pflag.FlagSet) Action {
		return func(ctx context.Context, args []string) error { return run(ctx, t, args) }
	}
}

// cobra makes the node of the tree. The flags are declared at once, since completion
// and documents need them.
func (c *Command) cobra(t *Terminal, name string) *cobra.Command {
	node := &cobra.Command{
		Use: strings.TrimSpace(name + " " + c.Args), Short: c.Short, Long: strings.TrimSpace(c.Long),
		Example: c.Example, Hidden: c.Hidden, DisableFlagsInUseLine: true,
	}
	f := node.Flags()
	f.SetNormalizeFunc(normalize)
	action := c.Setup(t, f)
	f.BoolP("help", "h", false, "print this text")
	node.Args = func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(c.Needs):
			return Usagef("%s: the %s is missing; see discharger %[1]s -h", c.Name, c.Needs[len(args)])
		case len(args) > c.Max:
			return Usagef("%s: too many arguments; see discharger %[1]s -h", c.Name)
		}
		return nil
	}
	node.RunE = func(cmd *cobra.Command, args []string) error { return action(cmd.Context(), unescapeIDs(args)) }
	node.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= c.Max {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if c.Complete != nil {
			if values := c.Complete(t, f, args); values != nil {
				return values, cobra.ShellCompDirectiveNoFileComp
			}
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
	for name, values := range c.Values {
		// The error is that of a flag that does not exist, which a test finds.
		_ = node.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return node
}

// normalize spells --o as --output, which is the long form of -o.
func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "o" {
		name = "output"
	}
	return pflag.NormalizedName(name)
}
