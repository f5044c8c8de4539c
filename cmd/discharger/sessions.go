package main

import (
	"context"
	"flag"
	"time"

	"github.com/discharger/discharger/config/keyfile"
	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// homeserverFlags are those of everything that asks the service as a
// homeserver.
type homeserverFlags struct {
	service string
	key     string
	wait    time.Duration
}

const apiKeyVariable = "DISCHARGER_API_KEY"

func (h *homeserverFlags) declare(t *terminal, f *flag.FlagSet) {
	f.StringVar(&h.service, "service", t.env("DISCHARGER_SERVICE", ""), "`URL` of the service; or $DISCHARGER_SERVICE, or as in the key file")
	f.StringVar(&h.key, "key", "", "key `file` of the homeserver, for its API key; or the API key in $"+apiKeyVariable)
	f.DurationVar(&h.wait, "wait", 0, "go on trying for `this long` while the service is unavailable")
}

// client makes a client that has the API key. It comes from a file or from the
// environment, and never from a flag, which others can see.
func (h *homeserverFlags) client(t *terminal) (*api.Client, error) {
	cfg := api.Config{URL: h.service, UserAgent: "discharger", Patience: h.wait, Clock: t.now}
	if h.wait == 0 {
		cfg.Patience = -1 // one attempt
	}
	if h.key != "" {
		ring, err := loadHomeserverKeys(h.key)
		if err != nil {
			return nil, err
		}
		cfg.APIKey = ring.Of(keyfile.API)[0].APIKey()
		if cfg.URL == "" {
			cfg.URL = ring.Peer.Service
		}
	} else if cfg.APIKey = caveat.Secret(t.env(apiKeyVariable, "")); len(cfg.APIKey) == 0 {
		return nil, usagef("no API key: give --key, or set $%s", apiKeyVariable)
	}
	if cfg.URL == "" {
		cfg.URL = defaultService
	}
	return api.New(cfg)
}

const aboutSessions = `
It asks as the homeserver, with the API key from its key file or from
$DISCHARGER_API_KEY, and reaches no other homeserver's sessions.`

func sessionsListCommand() command {
	return command{
		name: "sessions list", args: "[flags] <user>", about: "As a homeserver: list a user's sessions.", max: 1,
		more: `
Lists the sessions that are alive, the most recently used first. In modes open
and held, the time of the last use can be up to an hour older than the truth.
Sessions whose first discharge has not been fetched are not known yet.` + aboutSessions,
		setup: func(t *terminal, f *flag.FlagSet) action {
			var h homeserverFlags
			h.declare(t, f)
			asJSON := f.Bool("json", false, "write JSON, as the service does")
			return func(ctx context.Context, args []string) error {
				if len(args) < 1 {
					return usagef("whose sessions?")
				}
				client, err := h.client(t)
				if err != nil {
					return err
				}
				list, err := client.Sessions(ctx, args[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return t.writeJSON(api.SessionsResponse{Sessions: list})
				}
				return t.writeSessions(list)
			}
		},
	}
}

// revocation is a command that ends sessions.
type revocation struct {
	name, args, about, more string
	what                    []string // that the arguments are
	except, yes             bool     // flags it has

	do func(ctx context.Context, c *api.Client, args []string, except caveat.SessionID) error
}

func (r revocation) command() command {
	return command{
		name: r.name, args: r.args, about: r.about, more: r.more + aboutSessions, max: len(r.what),
		setup: func(t *terminal, f *flag.FlagSet) action {
			var h homeserverFlags
			h.declare(t, f)
			except, yes := new(string), new(bool)
			if r.except {
				except = f.String("except", "", "id of a `session` to leave alone")
			}
			if r.yes {
				yes = f.Bool("yes", false, "really do it")
			}
			return func(ctx context.Context, args []string) error {
				if len(args) < len(r.what) {
					return usagef("which %s?", r.what[len(args)])
				}
				if r.yes && !*yes {
					return usagef("this logs everybody out: say --yes if you mean it")
				}
				var kept caveat.SessionID
				var err error
				if *except != "" {
					if kept, err = sessionID(*except); err != nil {
						return err
					}
				}
				client, err := h.client(t)
				if err != nil {
					return err
				}
				if err := r.do(ctx, client, args, kept); err != nil {
					return err
				}
				t.say("revoked: nothing is discharged any more, and homeservers that follow the feed know")
				return nil
			}
		},
	}
}

func sessionID(text string) (caveat.SessionID, error) {
	id, err := caveat.ParseSessionID(text)
	if err != nil {
		return id, usagef("%s is not the id of a session: %v", quoted(text), err)
	}
	return id, nil
}

func sessionsRevokeCommand() command {
	return revocation{
		name: "sessions revoke", args: "[flags] <user> <session>", about: "As a homeserver: end one session of a user.",
		more: `
Ends the session whether its first discharge has been fetched or not. That it is
gone already is no error.`,
		what: []string{"user", "session"},
		do: func(ctx context.Context, c *api.Client, args []string, _ caveat.SessionID) error {
			id, err := sessionID(args[1])
			if err != nil {
				return err
			}
			return c.RevokeSession(ctx, args[0], id)
		},
	}.command()
}

func sessionsRevokeUserCommand() command {
	return revocation{
		name: "sessions revoke-user", args: "[flags] <user>", about: "As a homeserver: end all sessions of a user.",
		more: `
Ends what was minted by now, whether its first discharge has been fetched or
not, but for one session that has been discharged.`,
		what: []string{"user"}, except: true,
		do: func(ctx context.Context, c *api.Client, args []string, except caveat.SessionID) error {
			return c.RevokeUser(ctx, args[0], except)
		},
	}.command()
}

func sessionsRevokeDeviceCommand() command {
	return revocation{
		name: "sessions revoke-device", args: "[flags] <user> <device>", about: "As a homeserver: end the sessions of a user's device.",
		more: `
Ends the sessions that "discharger sessions list" shows for the device.`,
		what: []string{"user", "device"}, except: true,
		do: func(ctx context.Context, c *api.Client, args []string, except caveat.SessionID) error {
			return c.RevokeDevice(ctx, args[0], args[1], except)
		},
	}.command()
}

func sessionsRevokeAllCommand() command {
	return revocation{
		name: "sessions revoke-all", args: "--yes [flags]", about: "As a homeserver: end all sessions of all its users.",
		more: `
Everybody has to log in again.`,
		yes: true,
		do: func(ctx context.Context, c *api.Client, _ []string, _ caveat.SessionID) error {
			return c.RevokeAll(ctx)
		},
	}.command()
}
