package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

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
