package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/atomicfile"
)

var shells = []string{"bash", "zsh", "fish"}

func completionCommand(p *command.Program) command.Command {
	return command.Command{
		Name: "completion", Args: strings.Join(shells, "|"), Short: "Print the completion script of a shell.", Max: 1,
		Long: `
Completes commands, flags, the values of flags that have a fixed set, ids of keys and
names of policies.`,
		Example: `source <(discharger completion bash)
discharger completion zsh > "${fpath[1]}/_discharger"
discharger completion fish > ~/.config/fish/completions/discharger.fish`,
		Complete: func(*command.Terminal, *flag.FlagSet, []string) []string { return shells },
		Setup: command.NoFlags(func(_ context.Context, t *command.Terminal, args []string) error {
			root := p.Tree(t)
			switch strings.Join(args, "") {
			case "bash":
				return root.GenBashCompletionV2(t.Out, true)
			case "zsh":
				return root.GenZshCompletion(t.Out)
			case "fish":
				return root.GenFishCompletion(t.Out, true)
			}
			return command.Usagef("completion: the shell is one of %s", strings.Join(shells, ", "))
		}),
	}
}

func manCommand(p *command.Program) command.Command {
	return command.Command{
		Name: "man", Args: "<directory>", Short: "Write the man pages.", Needs: []string{"directory"}, Max: 1, Hidden: true,
		Long: `
Writes one page for each command. The same program writes the same bytes: pages have
the date of SOURCE_DATE_EPOCH, and no date without that variable.`,
		Example: "discharger man /usr/local/share/man/man1",
		Setup: command.NoFlags(func(_ context.Context, t *command.Terminal, args []string) error {
			date, err := epoch(t)
			if err != nil {
				return err
			}
			same := *t // the defaults of flags are those without environment
			same.LookupEnv = func(string) (string, bool) { return "", false }
			return writeManual(p.Tree(&same), args[0], date)
		}),
	}
}

// epoch returns the time of SOURCE_DATE_EPOCH; zero: it is not set.
func epoch(t *command.Terminal) (date time.Time, err error) {
	text := t.Env("SOURCE_DATE_EPOCH", "")
	if text == "" {
		return date, nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return date, command.Usagef("man: SOURCE_DATE_EPOCH %q is not a number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// writeManual writes the page of a command and those of all commands below it.
func writeManual(c *cobra.Command, dir string, date time.Time) error {
	for _, child := range c.Commands() {
		if child.Hidden || child.Name() == "help" {
			continue
		}
		if err := writeManual(child, dir, date); err != nil {
			return err
		}
	}
	c.Long = markdown(c.Long)
	c.Example = strings.TrimSpace(c.Example)
	var page bytes.Buffer
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	header := &doc.GenManHeader{Title: strings.ToUpper(name), Section: "1", Source: "discharger", Manual: "User Commands", Date: &date}
	if err := doc.GenMan(c, header, &page); err != nil {
		return fmt.Errorf("write man page of %s: %w", name, err)
	}
	text := page.Bytes()
	if date.IsZero() {
		text = bytes.Replace(text, []byte(strconv.Quote(date.Format("Jan 2006"))), []byte(`""`), 1)
	}
	return atomicfile.Write(filepath.Join(dir, name+".1"), text)
}

// markdown makes code blocks of indented lines, which keep their line breaks.
func markdown(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "  ") {
			lines[i] = "    " + strings.TrimLeft(line, " ")
		}
	}
	return strings.Join(lines, "\n")
}
