// Command discharger runs the discharge service, shows what it does, and does
// by hand what homeservers and clients do with it.
//
// Try it out:
//
//	discharger demo                       a whole session, explained step by step
//	discharger serve                      the service, with no configuration at all
//
// Each subcommand explains itself with -h. They chain: what one writes, the next
// reads, from a file or from standard input.
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
//	1   refused, not verified, or something else went wrong
//	2   used wrongly: unknown flags, missing arguments
//	3   unavailable: nothing was decided, and trying again may help
//	78  the configuration, a key file, a rule file or a caveat schema cannot be used
//
// # Secrets
//
// No flag takes a secret, since other users of a machine can see flags: secrets
// come from files, from standard input or from the environment. Files that get
// any are made with mode 0600. Nothing secret is logged.
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
	// The first signal asks to finish; after it, a second one ends the program.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	t := &command.Terminal{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		LookupEnv: os.LookupEnv, Now: time.Now,
	}
	os.Exit(program().Run(ctx, t, os.Args[1:]))
}
