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
	Max     int    // the most arguments that the command takes
	Hidden  bool   // not listed

	// Setup declares the flags and returns the action, which runs when they are set.
	Setup func(*Terminal, *pflag.FlagSet) Action

	// Values has the values of flags for completion, by name of the flag.
	Values map[string][]string

	// Complete returns the values of the next argument for completion; nil: files.
	Complete func(t *Terminal, f *pflag.FlagSet, args []string) []string
}

// cobra makes the node of the tree. The flags are declared at once, since completion
// and documents need them.
func (c *Command) cobra(t *Terminal, words []string) *cobra.Command {
	node := &cobra.Command{
		Use: strings.TrimSpace(words[len(words)-1] + " " + c.Args), Short: c.Short, Long: strings.TrimSpace(c.Long),
		Example: c.Example, Hidden: c.Hidden, DisableFlagsInUseLine: true,
	}
	f := node.Flags()
	f.SetNormalizeFunc(normalize)
	action := c.Setup(t, f)
	f.BoolP("help", "h", false, "print this text")
	node.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > c.Max {
			return Usagef("%s: too many arguments; see discharger %s -h", c.Name, c.Name)
		}
		return nil
	}
	node.RunE = func(cmd *cobra.Command, args []string) error { return action(cmd.Context(), unescapeIDs(args)) }
	node.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		switch {
		case len(args) >= c.Max:
			return nil, cobra.ShellCompDirectiveNoFileComp
		case c.Complete == nil:
			return nil, cobra.ShellCompDirectiveDefault
		}
		if values := c.Complete(t, f, args); values != nil {
			return values, cobra.ShellCompDirectiveNoFileComp
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
