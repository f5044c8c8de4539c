package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/policy"
)

// manyFiles is how many arguments a command takes that takes files.
const manyFiles = 1000

// policyFiles says which rule files a command is about: those of the arguments,
// or those of the configuration.
type policyFiles struct {
	t       *terminal
	options *config.Options
	schema  string
}

func declarePolicyFiles(t *terminal, f *flag.FlagSet) *policyFiles {
	p := &policyFiles{t: t, options: configFlags(t, f)}
	f.StringVar(&p.schema, "schema", "", "caveat schema `file`: what policies may add; without, the configuration's")
	return p
}

// load finds out what to load. Files that are named in arguments go before the
// configuration's.
func (p *policyFiles) load(args []string) (load policy.LoadConfig, cfg *config.Config, err error) {
	if cfg, err = loadConfig(p.options); err != nil {
		return load, nil, err
	}
	load.Files = cfg.Policy.Files
	if len(args) > 0 {
		load.Files = args
	}
	if p.schema == "" {
		p.schema = cfg.Policy.Schema
	}
	load.Caveats, err = loadCaveats(p.schema)
	load.Offline, load.Now = true, p.t.now
	return load, cfg, err
}

// some is load for commands that have nothing to say about no file.
func (p *policyFiles) some(args []string) (load policy.LoadConfig, cfg *config.Config, err error) {
	load, cfg, err = p.load(args)
	if err == nil && len(load.Files) == 0 {
		err = usagef("which policy file? There is none in the configuration either")
	}
	return load, cfg, err
}

// unusable is what is wrong with rule files: mistakes in them, or files that
// cannot be read.
func unusable(err error) error { return mark(err, errConfig) }

func policyCheckCommand() command {
	return command{
		name: "policy check", args: "[flags] [file...]", about: "Say what is wrong in rule files, and what rules cost.", max: manyFiles,
		more: `
Reads rule files, or those of the configuration, and shows every mistake with its
place, and rules that can never run. For each rule it tells how much of what a
decision may cost its condition takes at most. No test is run; see policy test.
Exit code 78: the files cannot be used.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			files := declarePolicyFiles(t, f)
			return func(_ context.Context, args []string) error {
				load, cfg, err := files.some(args)
				if err != nil {
					return err
				}
				return t.checkPolicy(load, cfg, files.options.File)
			}
		},
	}
}

func (t *terminal) checkPolicy(load policy.LoadConfig, cfg *config.Config, source string) error {
	r, err := policy.Check(load)
	if err != nil {
		return unusable(err)
	}
	if !r.OK() {
		return r.Problems
	}
	if _, err := r.Problems.WriteTo(t.err); err != nil { // warnings
		return err
	}
	load.SkipTests = true
	set, err := policy.Load(load)
	if err != nil {
		return unusable(err)
	}
	if problems := unknownPolicies(cfg, source, set); len(problems) > 0 {
		return problems
	}
	_, err = (&policy.CheckReport{Costs: r.Costs}).WriteTo(t.out)
	fmt.Fprintln(t.out, "ok")
	return err
}

func policyTestCommand() command {
	return command{
		name: "policy test", args: "[flags] [file...]", about: "Run the tests in rule files.", max: manyFiles,
		more: `
Reads rule files, or those of the configuration, and runs the tests that stand
beside the rules. What a test expected otherwise is shown line by line, and at the
end which rules decided in no test. The service does the same before it uses a
file. No webhook is asked. Exit code 1: a test failed.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			files := declarePolicyFiles(t, f)
			return func(_ context.Context, args []string) error {
				load, _, err := files.some(args)
				if err != nil {
					return err
				}
				load.SkipTests = true // they are run here
				set, err := policy.Load(load)
				if err != nil {
					return unusable(err)
				}
				return t.testPolicy(set)
			}
		},
	}
}

func (t *terminal) testPolicy(set *policy.Set) error {
	r := set.RunTests()
	if _, err := r.WriteTo(t.out); err != nil {
		return err
	}
	if err := r.WriteCoverage(t.out); err != nil {
		return err
	}
	if n := r.Failed(); n > 0 {
		return fmt.Errorf("tests failed: %d of %d", n, len(r.Results))
	}
	return nil
}

func policyDiffCommand() command {
	return command{
		name: "policy diff", args: "[flags] [old] new", about: "Say which recorded decisions other rules would change.", max: 2,
		more: `
Decides everything in an audit log with two rule files, and shows what differs,
the most frequent first. Without an old file, the new one is compared with what
was decided then. Several files that belong together are separated by commas. No
webhook is asked. See policy.audit in the configuration.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			files := declarePolicyFiles(t, f)
			replay := f.String("replay", "", "audit log `file` to decide again; - is standard input")
			return func(ctx context.Context, args []string) error {
				if len(args) == 0 || *replay == "" {
					return usagef("which rule files, and which audit log? See discharger policy diff -h")
				}
				return files.diff(ctx, args, *replay)
			}
		},
	}
}

func (p *policyFiles) diff(ctx context.Context, args []string, replay string) error {
	var sets []*policy.Set
	for _, arg := range args {
		load, _, err := p.load(strings.Split(arg, ","))
		if err != nil {
			return err
		}
		load.SkipTests = true // an old file may be compared as it is
		set, err := policy.Load(load)
		if err != nil {
			return unusable(err)
		}
		sets = append(sets, set)
	}
	if len(sets) == 1 {
		sets = []*policy.Set{nil, sets[0]}
	}
	log := p.t.in
	if replay != "-" {
		f, err := os.Open(replay)
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		defer f.Close()
		log = f
	}
	r, err := policy.Diff(ctx, sets[0], sets[1], log)
	if err != nil {
		return err
	}
	if _, err := r.WriteTo(p.t.out); err != nil {
		return err
	}
	if r.Records == 0 {
		return fmt.Errorf("there is no decision in %s", replay)
	}
	return nil
}

func policyShowCommand() command {
	return command{
		name: "policy show", args: "[name]", about: "Print a built-in policy, to read or to copy.", max: 1,
		more: `
Without a name it lists the built-in policies. A homeserver's configuration, or
a session's condition, chooses one by name. A file of your own with a policy of
the same name replaces it.`,
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return t.listBuiltins()
				}
				return t.showBuiltin(args[0])
			}
		},
	}
}

func (t *terminal) listBuiltins() error {
	set, err := policy.Load(policy.LoadConfig{SkipTests: true})
	if err != nil {
		return err
	}
	for _, name := range set.Names() {
		fmt.Fprintf(t.out, "%-8s  %s\n", name, set.Doc(name))
	}
	return nil
}

// showBuiltin prints the file that a built-in policy is in.
func (t *terminal) showBuiltin(name string) error {
	files, err := fs.Glob(policy.Builtin(), "*.yaml")
	if err != nil {
		return err
	}
	var all []string
	for _, file := range files {
		set, err := policy.Load(policy.LoadConfig{FS: policy.Builtin(), Files: []string{file}, OnlyFiles: true, SkipTests: true})
		if err != nil {
			return err
		}
		if set.Has(name) {
			data, err := fs.ReadFile(policy.Builtin(), file)
			if err != nil {
				return err
			}
			_, err = t.out.Write(data)
			return err
		}
		all = append(all, set.Names()...)
	}
	slices.Sort(all)
	return fmt.Errorf("there is no built-in policy %s; there are %s", quoted(name), strings.Join(all, ", "))
}

func policyFieldsCommand() command {
	return command{
		name: "policy fields", about: "List what the expressions in rules can read.",
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(context.Context, []string) error { return policy.WriteFields(t.out) }
		},
	}
}

func policySchemaCommand() command {
	return command{
		name: "policy schema", about: "Print a JSON Schema of rule files, for editors.",
		more: `
Editors that use yaml-language-server complete and check a rule file whose first
line is

  # yaml-language-server: $schema=policy.schema.json

where policy.schema.json is what this command prints. Its $defs has input and
decision, as webhooks and audit logs have them.`,
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(context.Context, []string) error {
				data, err := policy.JSONSchema()
				if err != nil {
					return err
				}
				return t.output("", strings.TrimSpace(string(data)))
			}
		},
	}
}
