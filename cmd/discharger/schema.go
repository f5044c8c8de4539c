package main

import (
	"context"
	"flag"
	"fmt"
	"strings"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy/schema"
	"github.com/discharger/discharger/policy/schema/boulangerie"
)

func schemaCheckCommand() command {
	return command{
		name: "schema check", args: "file...", about: "Say what is wrong in caveat schemas.", max: manyFiles,
		more: `
Reads caveat schemas, of our own format or of Boulangerie's, and shows every
mistake with its place. Exit code 78: a file cannot be used.`,
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				if len(args) == 0 {
					return usagef("which schema file?")
				}
				return t.checkSchemas(args)
			}
		},
	}
}

func (t *terminal) checkSchemas(paths []string) error {
	var all yamlfile.Problems
	for _, path := range paths {
		data, err := readSchema(path)
		if err != nil {
			return mark(err, errConfig)
		}
		problems := boulangerie.Check(path, data)
		if problems.Err() != nil {
			all = append(all, problems...)
			continue
		}
		t.report(problems)
		s, err := boulangerie.Load(path, data)
		if err != nil {
			return err
		}
		fmt.Fprintf(t.out, "%s: ok, %d caveats in version %d, format %s\n", path, len(s.Caveats()), s.Version(), s.Format())
	}
	return all.Err()
}

func schemaDocsCommand() command {
	return command{
		name: "schema docs", args: "[file]", about: "Print a reference of a schema's caveats, in Markdown.", max: 1,
		more: "Without a file it is the standard schema: what anyone who holds a macaroon of this\nservice may add to it.",
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(_ context.Context, args []string) error {
				s, err := schema.Std()
				if len(args) > 0 {
					s, err = loadSchema(args[0])
				}
				if err != nil {
					return mark(err, errConfig)
				}
				return t.output("", strings.TrimSpace(schema.Docs(s)))
			}
		},
	}
}
