// Package policies has the commands for rule files and caveat schemas: check, test,
// eval, diff and the references that the commands print.
package policies

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/ruleset"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
)

// Commands returns the commands "policy …" and "schema …".
func Commands() []command.Command {
	return []command.Command{
		checkCommand(), testCommand(), evalCommand(), diffCommand(), showCommand(), fieldsCommand(),
		schemaCommand(), schemaCheckCommand(), schemaDocsCommand(),
	}
}

// manyFiles bounds the arguments of commands that take files.
const manyFiles = 1000

// policyFiles selects the rule files of a command: those of the arguments,
// or those of the configuration.
type policyFiles struct {
	t       *command.Terminal
	options *config.Options
	schema  string
	cfg     *config.Config // set by load
}

func declarePolicyFiles(t *command.Terminal, f *flag.FlagSet) *policyFiles {
	p := &policyFiles{t: t, options: setup.ConfigFlags(t, f)}
	f.StringVar(&p.schema, "schema", "", "caveat schema `file`: the caveats that policies may add; without, the configuration's")
	return p
}

// load selects the files of the arguments, or else the configuration's, to be loaded
// without tests and webhooks.
func (p *policyFiles) load(args []string) (load rules.Config, err error) {
	if p.cfg, err = setup.LoadConfig(p.options); err != nil {
		return load, err
	}
	load = rules.Config{Files: p.cfg.Policy.Files, Offline: true, SkipTests: true}
	if len(args) > 0 {
		load.Files = args
	}
	load.Caveats, err = ruleset.Caveats(cmp.Or(p.schema, p.cfg.Policy.Schema))
	return load, err
}

// some is load for commands that need a file.
func (p *policyFiles) some(args []string) (load rules.Config, err error) {
	load, err = p.load(args)
	if err == nil && len(load.Files) == 0 {
		err = command.Usagef("which policy file? There is none in the configuration either")
	}
	return load, err
}

// loadRules loads rule files. Mistakes in them and files that cannot be read are errors
// of the configuration.
func loadRules(load rules.Config) (*rules.Set, error) {
	set, err := rules.Load(load)
	return set, command.Mark(err, command.ErrConfig)
}

func checkCommand() command.Command {
	return command.Command{
		Name: "policy check", Args: "[flags] [file...]", Short: "Check rule files, and print the cost of rules.", Max: manyFiles,
		Example: "discharger policy check policy.yaml",
		Long: `
Reads rule files, or those of the configuration, and prints every mistake with its
place, and rules that can never run. For each rule it prints the highest cost of its
condition; a decision has a budget. Tests are run by "discharger policy test". Exit
code 78: the files are unusable.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			files := declarePolicyFiles(t, f)
			return func(_ context.Context, args []string) error {
				load, err := files.some(args)
				if err != nil {
					return err
				}
				return files.check(load)
			}
		},
	}
}

func (p *policyFiles) check(load rules.Config) error {
	r, err := check.Files(load)
	if err != nil {
		return command.Mark(err, command.ErrConfig)
	}
	if !r.OK() {
		return r.Problems
	}
	if _, err := r.Problems.WriteTo(p.t.Err); err != nil { // warnings
		return err
	}
	if problems := ruleset.UnknownPolicies(p.cfg, p.options.File, r.Set); len(problems) > 0 {
		return problems
	}
	_, err = (&check.FileReport{Costs: r.Costs}).WriteTo(p.t.Out)
	fmt.Fprintln(p.t.Out, "ok")
	return err
}

func testCommand() command.Command {
	return command.Command{
		Name: "policy test", Args: "[flags] [file...]", Short: "Run the tests in rule files.", Max: manyFiles,
		Example: "discharger policy test policy.yaml",
		Long: `
Reads rule files, or those of the configuration, and runs the tests beside the rules.
It prints the differences of failed tests line by line, and then the rules that
decided in no test. The service runs the tests too, before it uses a file. No webhook is called. Exit code 1: a test failed.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			files := declarePolicyFiles(t, f)
			return func(_ context.Context, args []string) error {
				load, err := files.some(args)
				if err != nil {
					return err
				}
				set, err := loadRules(load)
				if err != nil {
					return err
				}
				return testPolicy(t, set)
			}
		},
	}
}

func testPolicy(t *command.Terminal, set *rules.Set) error {
	r := check.Tests(set)
	if _, err := r.WriteTo(t.Out); err != nil {
		return err
	}
	if err := r.WriteCoverage(t.Out); err != nil {
		return err
	}
	if n := r.Failed(); n > 0 {
		return fmt.Errorf("tests failed: %d of %d", n, len(r.Results))
	}
	return nil
}

func diffCommand() command.Command {
	return command.Command{
		Name: "policy diff", Args: "[flags] [old] new", Short: "List the recorded decisions that other rules would change.", Max: 2,
		Example: "discharger policy diff --replay audit.jsonl policy.yaml",
		Long: `
Decides the requests of an audit log with two rule files, and prints the differences,
the most frequent first. Without an old file, the new one is compared with the recorded
decisions. Files that belong together are separated by commas. No
webhook is called. See policy.audit in the configuration.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			files := declarePolicyFiles(t, f)
			replay := f.String("replay", "", "audit log `file` to decide again; - is standard input")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 || *replay == "" {
					return command.Usagef("policy diff: a rule file or --replay is missing; see discharger policy diff -h")
				}
				return files.diff(ctx, args, *replay)
			}
		},
	}
}

func (p *policyFiles) diff(ctx context.Context, args []string, replay string) error {
	var sets []*rules.Set
	for _, arg := range args {
		load, err := p.load(strings.Split(arg, ","))
		if err != nil {
			return err
		}
		set, err := loadRules(load)
		if err != nil {
			return err
		}
		sets = append(sets, set)
	}
	if len(sets) == 1 {
		sets = []*rules.Set{nil, sets[0]}
	}
	log := p.t.In
	if replay != "-" {
		f, err := os.Open(replay)
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		defer f.Close()
		log = f
	}
	r, err := check.Diff(ctx, sets[0], sets[1], log)
	if err != nil {
		return err
	}
	if _, err := r.WriteTo(p.t.Out); err != nil {
		return err
	}
	if r.Records == 0 {
		return fmt.Errorf("there is no decision in %s", replay)
	}
	return nil
}
