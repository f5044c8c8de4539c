package main

import (
	"cmp"
	"context"
	"runtime/debug"
	"strings"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
)

// Release, commit and date of the build. The linker sets them where the build has no
// version control; see the Dockerfile. Otherwise they are those of Go's build
// information.
var buildVersion, buildCommit, buildDate string

// version returns release, commit, date and the version of Go.
func version() string {
	release, commit, date, goVersion, modified := buildVersion, buildCommit, buildDate, "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		release, goVersion = cmp.Or(release, info.Main.Version), info.GoVersion
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = cmp.Or(commit, s.Value)
			case "vcs.time":
				date = cmp.Or(date, s.Value)
			case "vcs.modified":
				if s.Value == "true" {
					modified = ", modified"
				}
			}
		}
	}
	parts := []string{cmp.Or(release, "unknown")}
	if commit != "" {
		parts = append(parts, "commit "+commit+modified)
	}
	if date != "" {
		parts = append(parts, "of "+date)
	}
	return strings.Join(append(parts, goVersion), ", ")
}

func versionCommand() command.Command {
	return command.Command{
		Name: "version", Short: "Print the version of this program.",
		Long:    "Prints the release, the commit and its date, and the version of Go.",
		Example: "discharger version",
		Setup: func(t *command.Terminal, _ *flag.FlagSet) command.Action {
			return func(context.Context, []string) error { return t.Output("", "discharger "+version()) }
		},
	}
}
