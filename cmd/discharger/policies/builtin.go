package policies

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/policy/rulefile"
	"github.com/discharger/discharger/policy/rules"
)

// ShowCommand returns the command "policy show".
func ShowCommand() command.Command {
	return command.Command{
		Name: "policy show", Args: "[name]", Short: "Print a built-in policy, to read or to copy.", Max: 1,
		Example: `discharger policy show
discharger policy show strict > policy.yaml`,
		Complete: func(*command.Terminal, *flag.FlagSet, []string) []string { return builtinNames() },
		Long: `
Without a name it lists the built-in policies. A homeserver's configuration, or
a session's condition, chooses one by name. A file of your own with a policy of
the same name replaces it.`,
		Setup: func(t *command.Terminal, _ *flag.FlagSet) command.Action {
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return listBuiltins(t)
				}
				return showBuiltin(t, args[0])
			}
		},
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

// FieldsCommand returns the command "policy fields".
func FieldsCommand() command.Command {
	return command.Command{
		Name: "policy fields", Short: "List the fields that the expressions in rules can read.",
		Example: "discharger policy fields",
		Setup: func(t *command.Terminal, _ *flag.FlagSet) command.Action {
			return func(context.Context, []string) error { return rulefile.WriteFields(t.Out) }
		},
	}
}

// SchemaCommand returns the command "policy schema".
func SchemaCommand() command.Command {
	return command.Command{
		Name: "policy schema", Short: "Print a JSON Schema of rule files, for editors.",
		Example: "discharger policy schema > policy.schema.json",
		Long: `
Editors that use yaml-language-server complete and check a rule file whose first
line is

  # yaml-language-server: $schema=policy.schema.json

where policy.schema.json has the output of this command. Its $defs has input and
decision of webhooks and audit logs.`,
		Setup: func(t *command.Terminal, _ *flag.FlagSet) command.Action {
			return func(context.Context, []string) error {
				data, err := rulefile.JSONSchema()
				if err != nil {
					return err
				}
				return t.Output("", strings.TrimSpace(string(data)))
			}
		},
	}
}
