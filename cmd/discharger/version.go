package main

import (
	"context"
	"flag"
	"fmt"
	"runtime/debug"

	"github.com/discharger/discharger/cmd/discharger/command"
)

func versionCommand() command.Command {
	return command.Command{
		Name: "version", Short: "Print what this program was built from.",
		Setup: func(t *command.Terminal, _ *flag.FlagSet) command.Action {
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
				_, err := fmt.Fprintln(t.Out, "discharger", version)
				return err
			}
		},
	}
}
