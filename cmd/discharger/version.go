package main

import (
	"context"
	"flag"
	"fmt"
	"runtime/debug"
)

func versionCommand() command {
	return command{
		name: "version", about: "Print what this program was built from.",
		setup: func(t *terminal, _ *flag.FlagSet) action {
			return func(context.Context, []string) error {
				version, commit := "unknown", ""
				if info, ok := debug.ReadBuildInfo(); ok {
					version = info.Main.Version
					for _, s := range info.Settings {
						if s.Key == "vcs.revision" {
							commit = ", commit " + s.Value
						}
					}
					version += commit + ", " + info.GoVersion
				}
				_, err := fmt.Fprintln(t.out, "discharger", version)
				return err
			}
		},
	}
}
