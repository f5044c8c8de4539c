package command

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

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
	root.SetArgs(escapeIDs(root, args))
	err := root.ExecuteContext(ctx)
	t.Report(err)
	return ExitCode(err)
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
	words, parent := strings.Fields(c.Name), root
	for _, word := range words[:len(words)-1] {
		child := childOf(parent, word)
		if child == nil {
			child = newParent(word)
			parent.AddCommand(child)
		}
		parent = child
	}
	parent.AddCommand(c.cobra(t, words))
}

func childOf(parent *cobra.Command, name string) *cobra.Command {
	for _, c := range parent.Commands() {
		if c.Name() == name {
			return c
		}
	}
	return nil
}

// newParent returns a command that only has others.
func newParent(name string) *cobra.Command {
	parent := &cobra.Command{Use: name, Short: "Commands for " + name + ".", Args: cobra.ArbitraryArgs}
	parent.Flags().BoolP("help", "h", false, "print this text")
	parent.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return Usagef("%s needs a command: %s", name, strings.Join(names(cmd), ", "))
	}
	return parent
}

// names returns the commands below one, each with its parent's name.
func names(parent *cobra.Command) (all []string) {
	for _, c := range parent.Commands() {
		if !c.Hidden {
			all = append(all, pathOf(c))
		}
	}
	return all
}

// unknownCommand names the command that is spelt most like an unknown one, and all
// of a parent's commands otherwise.
func unknownCommand(parent *cobra.Command, name string) error {
	known := make([]string, 0, len(parent.Commands()))
	for _, c := range parent.Commands() {
		if !c.Hidden {
			known = append(known, c.Name())
		}
	}
	path := strings.TrimSpace(pathOf(parent) + " " + name)
	hint := ""
	if near := yamlfile.Nearest(name, known); near != "" {
		hint = " (did you mean " + strings.TrimSuffix(path, name) + near + "?)"
	}
	if parent.HasParent() && hint == "" {
		return Usagef("no command %q: the commands are %s", path, strings.Join(names(parent), ", "))
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
