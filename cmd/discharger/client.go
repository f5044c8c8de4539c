package main

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/discharger/discharger/discharger/atomicfile"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/wire"
)

// clientFlags are those of everything that asks the service.
type clientFlags struct {
	service   string
	key       string
	wait      time.Duration
	userAgent string
}

func (c *clientFlags) declare(f *flag.FlagSet, service string) {
	f.StringVar(&c.service, "service", service, "`URL` of the service; or $DISCHARGER_SERVICE")
	f.StringVar(&c.key, "key", "", "key `file` of the homeserver, to ask with its API key; mode held needs that")
	f.DurationVar(&c.wait, "wait", 0, "go on trying for `this long` while the service is unavailable")
	f.StringVar(&c.userAgent, "user-agent", "discharger", "what to call itself")
}

// client makes a client for a session's service.
func (c *clientFlags) client(t *terminal, service string, access client.Access) (*client.Client, error) {
	loc, err := location(access)
	if err != nil {
		return nil, err
	}
	cfg := client.Config{URL: service, Location: loc, UserAgent: c.userAgent, Patience: c.wait, Clock: t.now}
	if c.wait == 0 {
		cfg.Patience = -1 // one attempt
	}
	if c.key != "" {
		ring, err := loadHomeserverKeys(c.key)
		if err != nil {
			return nil, err
		}
		cfg.APIKey = ring.Of(keyfile.API)[0].APIKey()
	}
	return client.New(cfg)
}

const defaultService = "http://127.0.0.1:8090"

func dischargeCommand() command {
	return command{
		name: "discharge", args: "[flags] [access macaroon]", about: "As a client: get a session's first discharge.", max: 1,
		more: `
Reads an access macaroon from a file or standard input, as text or JSON, and
writes a session file: the bundle of access macaroon and discharge for the
homeserver, and in mode rotate the refresh token. Whoever has that file has the
session.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			var c clientFlags
			c.declare(f, t.env("DISCHARGER_SERVICE", defaultService))
			out := f.String("o", "", "session `file` to make; without, it goes to standard output")
			bundle := f.Bool("bundle", false, "write the bundle to standard output, and the session only with -o")
			return func(ctx context.Context, args []string) error {
				if _, err := os.Lstat(*out); err == nil {
					return fmt.Errorf("%s is there already, and stays", *out)
				}
				data, err := t.input(args)
				if err != nil {
					return err
				}
				s := &savedSession{Service: c.service, Access: string(data)}
				if err := c.discharge(ctx, t, s); err != nil {
					return err
				}
				return t.deliver(s, *out, *bundle)
			}
		},
	}
}

// discharge asks for a discharge and puts it into the session.
func (c *clientFlags) discharge(ctx context.Context, t *terminal, s *savedSession) error {
	r, err := s.request()
	if err != nil {
		return err
	}
	client, err := c.client(t, s.Service, r.Access)
	if err != nil {
		return err
	}
	g, err := client.Discharge(ctx, r)
	if err != nil {
		return err
	}
	return s.take(g)
}

// deliver writes what a first discharge gave.
func (t *terminal) deliver(s *savedSession, out string, bundle bool) error {
	text, err := s.text()
	if err != nil {
		return err
	}
	if out != "" || !bundle {
		if err := t.output(out, text); err != nil {
			return err
		}
	}
	if bundle {
		if err := t.output("", s.Bundle); err != nil {
			return err
		}
	}
	t.sayUntil(s)
	return nil
}

func (t *terminal) sayUntil(s *savedSession) {
	t.say("discharged until %s, %v from now", s.Expires.Format(time.RFC3339), s.Expires.Sub(t.now()).Round(time.Second))
}

func refreshCommand() command {
	return command{
		name: "refresh", args: "[flags] <session file>", about: "As a client: get the next discharge.", max: 1,
		more: `
Asks with what is in the session file, and writes what comes back into it. If no
answer comes, run it again: it asks under the same request-id, and the service
takes it for the same refresh.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			var c clientFlags
			c.declare(f, t.env("DISCHARGER_SERVICE", ""))
			bundle := f.Bool("bundle", false, "write the bundle to standard output")
			return func(ctx context.Context, args []string) error {
				return c.withSession(t, args, func(s *savedSession, path string) error {
					if err := c.refresh(ctx, t, s, path); err != nil {
						return err
					}
					t.sayUntil(s)
					if *bundle {
						return t.output("", s.Bundle)
					}
					return nil
				})
			}
		},
	}
}

// withSession reads the session file that the argument names, and keeps other
// commands away from it until do is done: one refresh token used by two looks
// like a theft.
func (c *clientFlags) withSession(t *terminal, args []string, do func(s *savedSession, path string) error) error {
	if len(args) == 0 || args[0] == "-" {
		return usagef("which session file?")
	}
	unlock, err := atomicfile.Lock(args[0])
	if err != nil {
		return err
	}
	defer unlock()
	data, err := t.input(args)
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

// refresh makes one refresh, or goes on with one whose answer got lost. The
// request-id is on disk before the question, and the answer before its use.
func (c *clientFlags) refresh(ctx context.Context, t *terminal, s *savedSession, path string) error {
	if s.RequestID == "" {
		s.RequestID = rand.Text()
		if err := s.save(path); err != nil {
			return err
		}
	}
	if err := c.discharge(ctx, t, s); err != nil {
		return err
	}
	return s.save(path)
}

func logoutCommand() command {
	return command{
		name: "logout", args: "[flags] <session file>", about: "As a client: end a session.", max: 1,
		more: `
From then on nothing discharges the session's access macaroon. What has been
discharged already is good until it runs out.`,
		setup: func(t *terminal, f *flag.FlagSet) action {
			var c clientFlags
			c.declare(f, t.env("DISCHARGER_SERVICE", ""))
			user := f.Bool("user", false, "end all sessions of this session's user")
			return func(ctx context.Context, args []string) error {
				return c.withSession(t, args, func(s *savedSession, _ string) error { return c.logout(ctx, t, s, *user) })
			}
		},
	}
}

func (c *clientFlags) logout(ctx context.Context, t *terminal, s *savedSession, user bool) error {
	r, err := s.request()
	if err != nil {
		return err
	}
	client, err := c.client(t, s.Service, r.Access)
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
	t.say("logged out: %s; its last bundle runs out at %s", what, s.Expires.Format(time.RFC3339))
	return nil
}
