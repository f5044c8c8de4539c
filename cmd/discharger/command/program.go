package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/discharger/discharger/config/yamlfile"
)

// Program is a tree of commands.
type Program struct {
	Name    string
	Short   string // the sentence above the list of commands
	Closing string // the line below it
	Version string // one line, for --version
	Groups  []Group
}

// Group is a part of the list of commands.
type Group struct {
	Title    string
	Commands []Command
}

// Run runs the command that args name, reports its error and returns the exit code.
func (p *Program) Run(ctx context.Context, t *Terminal, args []string) int {
	root := p.Tree(t)
	if len(args) > 0 && args[0] == cobra.ShellCompRequestCmd {
		stripQuotes(root)
	}
	root.SetArgs(escapeIDs(root, args))
	err := root.ExecuteContext(ctx)
	t.Report(err)
	return ExitCode(err)
}

// stripQuotes removes the backquotes around names of values from the descriptions of
// flags, which completion prints as they are.
func stripQuotes(c *cobra.Command) {
	c.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") })
	for _, child := range c.Commands() {
		stripQuotes(child)
	}
}

// Tree returns the commands as cobra has them, for completion and man pages too.
func (p *Program) Tree(t *Terminal) *cobra.Command {
	root := &cobra.Command{
		Use: p.Name, Short: p.Short, SilenceErrors: true, SilenceUsage: true, DisableAutoGenTag: true, Args: cobra.ArbitraryArgs,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(t.In)
	root.SetOut(t.Out)
	root.SetErr(t.Err)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(p.help)
	root.SetHelpCommand(p.helpCommand(root))
	root.Flags().BoolP("help", "h", false, "print this text")
	version := root.Flags().Bool("version", false, "print the version")
	root.RunE = func(_ *cobra.Command, args []string) error {
		switch {
		case *version:
			return t.Output("", p.Version)
		case len(args) > 0:
			return unknownCommand(root, args[0])
		}
		p.overview(t.Err)
		return Usagef("a command is missing")
	}
	for i := range p.Groups {
		for j := range p.Groups[i].Commands {
			addCommand(root, t, &p.Groups[i].Commands[j])
		}
	}
	return root
}

// addCommand puts a command into the tree, below its parent if its name has two words.
func addCommand(root *cobra.Command, t *Terminal, c *Command) {
	parent, name := root, c.Name
	if group, below, ok := strings.Cut(c.Name, " "); ok {
		name = below
		i := slices.IndexFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == group })
		if i < 0 {
			parent = newParent(group)
			root.AddCommand(parent)
		} else {
			parent = root.Commands()[i]
		}
	}
	parent.AddCommand(c.cobra(t, name))
}

// newParent returns a command that only has others.
func newParent(name string) *cobra.Command {
	parent := &cobra.Command{Use: name, Short: "Commands for " + name + ".", Args: cobra.ArbitraryArgs}
	parent.Flags().BoolP("help", "h", false, "print this text")
	parent.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		_, all := names(cmd)
		return Usagef("%s needs a command: %s", name, strings.Join(all, ", "))
	}
	return parent
}

// names returns the listed commands below one, without and with its own name.
func names(parent *cobra.Command) (own, full []string) {
	for _, c := range parent.Commands() {
		if !c.Hidden {
			own, full = append(own, c.Name()), append(full, pathOf(c))
		}
	}
	return own, full
}

// unknownCommand names the command that is spelt most like an unknown one, and all
// of a parent's commands otherwise.
func unknownCommand(parent *cobra.Command, name string) error {
	known, all := names(parent)
	path := strings.TrimSpace(pathOf(parent) + " " + name)
	hint := ""
	if near := yamlfile.Nearest(name, known); near != "" {
		hint = " (did you mean " + strings.TrimSuffix(path, name) + near + "?)"
	}
	if parent.HasParent() && hint == "" {
		return Usagef("no command %q: the commands are %s", path, strings.Join(all, ", "))
	}
	return Usagef("no command %q%s; see %s help", path, hint, parent.Root().Name())
}

func (p *Program) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Print the help of a command.", Hidden: true, Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(c, append(rest, "")[0])
			}
			return c.Help()
		},
	}
}

// overview lists all commands by group.
func (p *Program) overview(w io.Writer) {
	write(w, "%s\n", p.Short)
	for _, g := range p.Groups {
		write(w, "\n%s:\n", g.Title)
		for _, c := range g.Commands {
			if !c.Hidden {
				write(w, "  %s %-23s %s\n", p.Name, c.Name, c.Short)
			}
		}
	}
	write(w, "\n%s\n", p.Closing)
}

// write prints help. An error of a terminal that is gone has no reader.
func write(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// help prints the list of commands for the root, and for any other command its usage,
// description, examples and flags.
func (p *Program) help(c *cobra.Command, _ []string) {
	w := c.OutOrStdout()
	if !c.HasParent() {
		p.overview(w)
		return
	}
	_, args, _ := strings.Cut(c.Use, " ")
	write(w, "usage: %s\n\n%s\n", strings.TrimSpace(c.CommandPath()+" "+args), c.Short)
	if c.Long != "" {
		write(w, "\n%s\n", c.Long)
	}
	if c.HasSubCommands() {
		write(w, "\nCommands:\n")
		for _, child := range c.Commands() {
			if !child.Hidden {
				write(w, "  %-34s %s\n", child.CommandPath(), child.Short)
			}
		}
	}
	if c.Example != "" {
		write(w, "\nExamples:\n%s\n", indent(c.Example))
	}
	write(w, "\nFlags:\n")
	c.Flags().VisitAll(func(f *pflag.Flag) { write(w, "  %-26s %s\n", flagName(f), flagUsage(f)) })
}

// indent moves lines two columns to the right.
func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

// flagName returns a flag with its short form and the name of its value.
func flagName(f *pflag.Flag) string {
	name, _ := pflag.UnquoteUsage(f)
	text := "--" + f.Name
	if f.Shorthand != "" {
		text = "-" + f.Shorthand + ", " + text
	}
	if f.Value.Type() == "bool" {
		name = ""
	}
	return strings.TrimSpace(text + " " + name)
}

// flagUsage returns the description of a flag, with its default.
func flagUsage(f *pflag.Flag) string {
	_, usage := pflag.UnquoteUsage(f)
	switch f.DefValue {
	case "", "false", "0s":
		return usage
	}
	return usage + " (default " + f.DefValue + ")"
}
