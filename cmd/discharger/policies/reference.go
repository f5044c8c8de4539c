package policies

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/ruleset"
	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/rulefile"
	"github.com/discharger/discharger/policy/rules"
	"github.com/discharger/discharger/policy/schema"
	"github.com/discharger/discharger/policy/schema/boulangerie"
)

func showCommand() command.Command {
	return command.Command{
		Name: "policy show", Args: "[name]", Short: "Print a built-in policy, to read or to copy.", Max: 1,
		Example: `discharger policy show
discharger policy show strict > policy.yaml`,
		Complete: func(*command.Terminal, *flag.FlagSet, []string) []string { return builtinNames() },
		Long: `
Without a name it lists the built-in policies. A homeserver's configuration, or
a session's condition, chooses one by name. A file of your own with a policy of
the same name replaces it.`,
		Setup: command.NoFlags(func(_ context.Context, t *command.Terminal, args []string) error {
			if len(args) == 0 {
				return listBuiltins(t)
			}
			return showBuiltin(t, args[0])
		}),
	}
}

func listBuiltins(t *command.Terminal) error {
	set, err := rules.Load(rules.Config{SkipTests: true})
	if err != nil {
		return err
	}
	for _, name := range set.Names() {
		fmt.Fprintf(t.Out, "%-8s  %s\n", name, set.Doc(name))
	}
	return nil
}

// builtinNames returns the names of the built-in policies.
func builtinNames() []string {
	set, err := rules.Load(rules.Config{SkipTests: true})
	if err != nil {
		return nil
	}
	return set.Names()
}

// showBuiltin prints the file with a built-in policy.
func showBuiltin(t *command.Terminal, name string) error {
	files, err := fs.Glob(rules.Builtin(), "*.yaml")
	if err != nil {
		return err
	}
	var all []string
	for _, file := range files {
		set, err := rules.Load(rules.Config{FS: rules.Builtin(), Files: []string{file}, OnlyFiles: true, SkipTests: true})
		if err != nil {
			return err
		}
		if set.Has(name) {
			data, err := fs.ReadFile(rules.Builtin(), file)
			if err != nil {
				return err
			}
			_, err = t.Out.Write(data)
			return err
		}
		all = append(all, set.Names()...)
	}
	slices.Sort(all)
	return fmt.Errorf("no built-in policy %s; there are %s", command.Quoted(name), strings.Join(all, ", "))
}

func fieldsCommand() command.Command {
	return command.Command{
		Name: "policy fields", Short: "List the fields that the expressions in rules can read.",
		Example: "discharger policy fields",
		Setup:   command.NoFlags(func(_ context.Context, t *command.Terminal, _ []string) error { return rulefile.WriteFields(t.Out) }),
	}
}

func schemaCommand() command.Command {
	return command.Command{
		Name: "policy schema", Short: "Print a JSON Schema of rule files, for editors.",
		Example: "discharger policy schema > policy.schema.json",
		Long: `
Editors that use yaml-language-server complete and check a rule file whose first
line is

  # yaml-language-server: $schema=policy.schema.json

where policy.schema.json has the output of this command. Its $defs has input and
decision of webhooks and audit logs.`,
		Setup: command.NoFlags(func(_ context.Context, t *command.Terminal, _ []string) error {
			data, err := rulefile.JSONSchema()
			if err != nil {
				return err
			}
			return t.Output("", strings.TrimSpace(string(data)))
		}),
	}
}

func schemaCheckCommand() command.Command {
	return command.Command{
		Name: "schema check", Args: "file...", Short: "Check caveat schemas.", Needs: []string{"file"}, Max: manyFiles,
		Example: "discharger schema check caveats.yaml",
		Long: `
Reads caveat schemas, in this program's format or Boulangerie's, and prints every
mistake with its place. Exit code 78: a file is unusable.`,
		Setup: command.NoFlags(checkSchemas),
	}
}

func checkSchemas(_ context.Context, t *command.Terminal, paths []string) error {
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

func schemaDocsCommand() command.Command {
	return command.Command{
		Name: "schema docs", Args: "[file]", Short: "Print a reference of a schema's caveats, in Markdown.", Max: 1,
		Example: "discharger schema docs caveats.yaml > caveats.md",
		Long:    "Without a file it is the standard schema: the caveats that the holder of a macaroon\nmay add to it.",
		Setup: command.NoFlags(func(_ context.Context, t *command.Terminal, args []string) error {
			s, err := schema.Std()
			if len(args) > 0 {
				s, err = ruleset.Schema(args[0])
			}
			if err != nil {
				return command.Mark(err, command.ErrConfig)
			}
			return t.Output("", strings.TrimSpace(schema.Docs(s)))
		}),
	}
}
