// Package tokens has the commands that do by hand the steps of clients and homeservers
// with macaroons: mint, attenuate, discharge, refresh, logout, verify and inspect.
//
// A session file has the state of a client. A refresh writes its request-id to the
// file before the request, and the answer before its use, so that an interrupted
// refresh can be repeated.
package tokens

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/discharger/atomicfile"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/wire"
)

// Commands returns the commands on macaroons.
func Commands() []command.Command {
	return []command.Command{
		mintCommand(), attenuateCommand(), dischargeCommand(), refreshCommand(), logoutCommand(),
		verifyCommand(), inspectCommand(),
	}
}

// clientFlags are the flags of commands that call the service as a client.
type clientFlags struct {
	service   string
	key       string
	wait      time.Duration
	userAgent string
}

func (c *clientFlags) declare(f *flag.FlagSet, service string) {
	f.StringVar(&c.service, "service", service, "`URL` of the service; or $DISCHARGER_SERVICE")
	f.StringVar(&c.key, "key", "", "key `file` of the homeserver, whose API key mode held needs")
	f.DurationVar(&c.wait, "wait", 0, "`duration` of retries while the service is unavailable")
	f.StringVar(&c.userAgent, "user-agent", "discharger", "`name` of the client, which the service records")
}

// client returns a client of a session's service, and the request for the session's next
// discharge.
func (c *clientFlags) client(s *savedSession) (*client.Client, client.Request, error) {
	var r client.Request
	access, err := client.ParseAccess([]byte(s.Access))
	if err != nil {
		return nil, r, err
	}
	r = client.Request{Access: access, Token: client.RefreshToken(s.RefreshToken), RequestID: s.RequestID}
	loc, err := location(access)
	if err != nil {
		return nil, r, err
	}
	cfg := client.Config{URL: s.Service, Location: loc, UserAgent: c.userAgent, Patience: cmp.Or(c.wait, -1)} // -1: one attempt
	if c.key != "" {
		ring, err := setup.HomeserverKeys(c.key)
		if err != nil {
			return nil, r, err
		}
		cfg.APIKey = ring.Of(keyfile.API)[0].APIKey()
	}
	service, err := client.New(cfg)
	return service, r, err
}

func dischargeCommand() command.Command {
	return command.Command{
		Name: "discharge", Args: "[flags] [access macaroon]", Short: "As a client: get a session's first discharge.", Max: 1,
		Example: "discharger discharge --service https://auth.example.org -o alice.json access",
		Long: `
Reads an access macaroon from a file or standard input, as text or JSON, and
writes a session file: the bundle of access macaroon and discharge for the
homeserver, and in mode rotate the refresh token. The file is a secret: it is all that
a client of the session needs.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			var c clientFlags
			c.declare(f, t.Env("DISCHARGER_SERVICE", setup.DefaultService))
			out := f.StringP("output", "o", "", "session `file` to make, instead of standard output")
			bundle := f.Bool("bundle", false, "write the bundle to standard output, and the session only with -o")
			return func(ctx context.Context, args []string) error {
				if _, err := os.Lstat(*out); err == nil {
					return fmt.Errorf("%s exists and is not replaced", *out)
				}
				data, err := t.Input(args)
				if err != nil {
					return err
				}
				s := &savedSession{Service: c.service, Access: string(data)}
				if err := c.discharge(ctx, s); err != nil {
					return err
				}
				if *out != "" || !*bundle {
					if err := t.JSON(*out, s); err != nil {
						return err
					}
				}
				return deliver(t, s, *bundle)
			}
		},
	}
}

// discharge fetches a discharge and stores it in the session.
func (c *clientFlags) discharge(ctx context.Context, s *savedSession) error {
	client, r, err := c.client(s)
	if err != nil {
		return err
	}
	g, err := client.Discharge(ctx, r)
	if err != nil {
		return err
	}
	return s.take(g)
}

// deliver reports a discharge, and writes the bundle to standard output if it is requested.
func deliver(t *command.Terminal, s *savedSession, bundle bool) error {
	t.Say("discharged until %s, %v from now", s.Expires.Format(time.RFC3339), s.Expires.Sub(t.Now()).Round(time.Second))
	if !bundle {
		return nil
	}
	return t.Output("", s.Bundle)
}

func refreshCommand() command.Command {
	return command.Command{
		Name: "refresh", Args: "[flags] <session file>", Short: "As a client: get the next discharge.", Max: 1,
		Example: "discharger refresh alice.json",
		Long: `
Reads the session file, fetches the next discharge and writes both into the file. If
the answer is lost, run it again: it repeats the request-id, and the service returns
the same refresh token.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			var c clientFlags
			c.declare(f, t.Env("DISCHARGER_SERVICE", ""))
			bundle := f.Bool("bundle", false, "write the bundle to standard output")
			return func(ctx context.Context, args []string) error {
				return c.withSession(t, args, func(s *savedSession, path string) error {
					if err := c.refresh(ctx, s, path); err != nil {
						return err
					}
					return deliver(t, s, *bundle)
				})
			}
		},
	}
}

// withSession reads the session file that the argument names, and locks it until do
// returns: two uses of one refresh token are a theft to the service.
func (c *clientFlags) withSession(t *command.Terminal, args []string, do func(s *savedSession, path string) error) error {
	if len(args) == 0 || args[0] == "-" {
		return command.Usagef("the session file is missing")
	}
	unlock, err := atomicfile.Lock(args[0])
	if err != nil {
		return err
	}
	defer unlock()
	data, err := t.Input(args)
	if err != nil {
		return err
	}
	s, err := parseSession(data)
	if err != nil {
		return err
	}
	if c.service != "" {
		s.Service = c.service
	}
	return do(s, args[0])
}

// refresh makes one refresh, or repeats one whose answer was lost. The request-id is on
// disk before the request, and the answer before its use.
func (c *clientFlags) refresh(ctx context.Context, s *savedSession, path string) error {
	if s.RequestID == "" {
		s.RequestID = rand.Text()
		if err := s.save(path); err != nil {
			return err
		}
	}
	if err := c.discharge(ctx, s); err != nil {
		return err
	}
	return s.save(path)
}

func logoutCommand() command.Command {
	return command.Command{
		Name: "logout", Args: "[flags] <session file>", Short: "As a client: end a session.", Max: 1,
		Example: "discharger logout alice.json",
		Long: `
The session's access macaroon is not discharged any more. Its last discharge is valid
until it expires.`,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			var c clientFlags
			c.declare(f, t.Env("DISCHARGER_SERVICE", ""))
			user := f.Bool("user", false, "end all sessions of this session's user")
			return func(ctx context.Context, args []string) error {
				return c.withSession(t, args, func(s *savedSession, _ string) error { return c.logout(ctx, t, s, *user) })
			}
		},
	}
}

func (c *clientFlags) logout(ctx context.Context, t *command.Terminal, s *savedSession, user bool) error {
	client, r, err := c.client(s)
	if err != nil {
		return err
	}
	scope, what := wire.ScopeSession, "the session is over"
	if user {
		scope, what = wire.ScopeUser, "all sessions of the user are over"
	}
	if err := client.Logout(ctx, r, scope); err != nil {
		return err
	}
	t.Say("logged out: %s; its last bundle expires at %s", what, s.Expires.Format(time.RFC3339))
	return nil
}
