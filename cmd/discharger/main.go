// Command discharger runs the discharge service, demonstrates it, and does by hand
// the steps of homeservers and clients.
//
// Try it out:
//
//	discharger demo                       a session, step by step
//	discharger serve                      the service, without a configuration
//
// Each command has -h. Commands chain: one reads the output of another, from a file or
// from standard input.
//
//	discharger keys new --kind homeserver --name example.org homeserver.json
//	discharger mint --key homeserver.json --user @alice:example.org > access
//	discharger discharge -o alice.json access
//	discharger verify --key homeserver.json alice.json
//	discharger refresh alice.json
//	discharger logout alice.json
//
// # Exit codes
//
//	0   done; for verify: accepted
//	1   refused, not verified, or another error
//	2   wrong command line: unknown flags, missing arguments
//	3   unavailable: undecided, and a retry may help
//	78  the configuration, a key file, a rule file or a caveat schema is unusable
//
// # Secrets
//
// No flag takes a secret, since other users of a machine can see flags: secrets
// come from files, from standard input or from the environment. Files with secrets are
// made with mode 0600. No secret is logged.
package main

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/discharger/discharger/cmd/discharger/backup"
	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/demo"
	"github.com/discharger/discharger/cmd/discharger/gatewayd"
	"github.com/discharger/discharger/cmd/discharger/keys"
	"github.com/discharger/discharger/cmd/discharger/policies"
	"github.com/discharger/discharger/cmd/discharger/serve"
	"github.com/discharger/discharger/cmd/discharger/sessions"
	"github.com/discharger/discharger/cmd/discharger/tokens"
)

func main() {
	// The first signal begins the shutdown; a second one ends the program at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	t := &command.Terminal{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		LookupEnv: os.LookupEnv, Now: time.Now,
	}
	os.Exit(program().Run(ctx, t, os.Args[1:]))
}

// program returns the tree of commands.
func program() *command.Program {
	p := &command.Program{
		Name:    "discharger",
		Short:   "discharger issues short-lived discharges for sessions, and stops when they end.",
		Closing: "Each command has -h. To watch a session from login to logout: discharger demo",
		Version: "discharger " + version(),
		Groups: []command.Group{
			{Title: "Run", Commands: []command.Command{serve.Command(), gatewayd.Command(), demo.Command()}},
			{Title: "Keys", Commands: keys.Commands()},
			{Title: "Macaroons", Commands: tokens.Commands()},
			{Title: "Sessions", Commands: sessions.Commands()},
			{Title: "Policies", Commands: policies.Commands()},
			{Title: "Operation", Commands: []command.Command{
				configCheckCommand(), configExampleCommand(), backup.Command(), backup.RestoreCommand(), healthCommand(), versionCommand(),
			}},
		},
	}
	last := &p.Groups[len(p.Groups)-1]
	last.Commands = append(last.Commands, completionCommand(p), manCommand(p))
	return p
}

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
		Setup: command.NoFlags(func(_ context.Context, t *command.Terminal, _ []string) error {
			return t.Output("", "discharger "+version())
		}),
	}
}
