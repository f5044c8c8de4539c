package policies

import (
	"context"
	"fmt"
	"strings"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/ruleset"
	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/schema"
	"github.com/discharger/discharger/policy/schema/boulangerie"
)

// SchemaCheckCommand returns the command "schema check".
func SchemaCheckCommand() command.Command {
	return command.Command{
		Name: "schema check", Args: "file...", Short: "Check caveat schemas.", Max: manyFiles,
		Example: "discharger schema check caveats.yaml",
		Long: `
Reads caveat schemas, in this program's format or Boulangerie's, and prints every
mistake with its place. Exit code 78: a file is unusable.`,
		Setup: func(t *command.Terminal, _ *flag.FlagSet) command.Action {
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return command.Usagef("schema check: the file is missing")
				}
				return checkSchemas(t, args)
			}
		},
	}
}

func checkSchemas(t *command.Terminal, paths []string) error {
	var all yamlfile.Problems
	for _, path := range paths {
		data, err := ruleset.ReadSchema(path)
		if err != nil {
			return command.Mark(err, command.ErrConfig)
		}
		problems := boulangerie.Check(path, data)
		if problems.Err() != nil {
			all = append(all, problems...)
			continue
		}
		t.Report(problems)
		s, err := boulangerie.Load(path, data)
		if err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "%s: ok, %d caveats in version %d, format %s\n", path, len(s.Caveats()), s.Version(), s.Format())
	}
	return all.Err()
}

// SchemaDocsCommand returns the command "schema docs".
func SchemaDocsCommand() command.Command {
	return command.Command{
		Name: "schema docs", Args: "[file]", Short: "Print a reference of a schema's caveats, in Markdown.", Max: 1,
		Example: "discharger schema docs caveats.yaml > caveats.md",
		Long:    "Without a file it is the standard schema: the caveats that the holder of a macaroon\nmay add to it.",
		Setup: func(t *command.Terminal, _ *flag.FlagSet) command.Action {
			return func(_ context.Context, args []string) error {
				s, err := schema.Std()
				if len(args) > 0 {
					s, err = ruleset.Schema(args[0])
				}
				if err != nil {
					return command.Mark(err, command.ErrConfig)
				}
				return t.Output("", strings.TrimSpace(schema.Docs(s)))
			}
		},
	}
}
