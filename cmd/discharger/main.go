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
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
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
