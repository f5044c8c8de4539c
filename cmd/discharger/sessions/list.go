// Package sessions has the commands of a homeserver that list, revoke and watch its
// sessions. They authenticate with the homeserver's API key, which comes from a key
// file or from the environment, and never from a flag.
package sessions

import (
	"context"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/wire"
)

// homeserverFlags are the flags of commands that call the service as a homeserver.
type homeserverFlags struct {
	service string
	key     string
	wait    time.Duration
}

const apiKeyVariable = "DISCHARGER_API_KEY"

func (h *homeserverFlags) declare(t *command.Terminal, f *flag.FlagSet) {
	f.StringVar(&h.service, "service", t.Env("DISCHARGER_SERVICE", ""), "`URL` of the service; or $DISCHARGER_SERVICE, or as in the key file")
	f.StringVar(&h.key, "key", "", "key `file` of the homeserver, for its API key; or the API key in $"+apiKeyVariable)
	f.DurationVar(&h.wait, "wait", 0, "`duration` of retries while the service is unavailable")
}

// client returns a client with the API key, which comes from a file or from the
// environment: other users of the machine can read flags.
func (h *homeserverFlags) client(t *command.Terminal) (*client.Client, error) {
	return h.named(t, nil)
}

// named is client, and stores the name of the homeserver in the key file, if any.
func (h *homeserverFlags) named(t *command.Terminal, name *string) (*client.Client, error) {
	cfg := client.Config{URL: h.service, UserAgent: "discharger", Patience: h.wait}
	if h.wait == 0 {
		cfg.Patience = -1 // one attempt
	}
	if h.key != "" {
		ring, err := setup.HomeserverKeys(h.key)
		if err != nil {
			return nil, err
		}
		cfg.APIKey = ring.Of(keyfile.API)[0].APIKey()
		if cfg.URL == "" {
			cfg.URL = ring.Peer.Service
		}
		if name != nil {
			*name = ring.Peer.Name
		}
	} else if cfg.APIKey = secret.Bytes(t.Env(apiKeyVariable, "")); len(cfg.APIKey) == 0 {
		return nil, command.Usagef("no API key: give --key, or set $%s", apiKeyVariable)
	}
	if cfg.URL == "" {
		cfg.URL = setup.DefaultService
	}
	return client.New(cfg)
}

const aboutSessions = `
It calls the service as the homeserver, with the API key from its key file or from
$DISCHARGER_API_KEY, and reaches the sessions of this homeserver only.`

// ListCommand returns the command "sessions list".
func ListCommand() command.Command {
	return command.Command{
		Name: "sessions list", Args: "[flags] <user>", Short: "As a homeserver: list a user's sessions.", Max: 1,
		Example: "discharger sessions list --key homeserver.json @alice:example.org",
		Long: `
Lists the live sessions, the most recently used first. In modes open and held, the
time of the last use is up to an hour old. Sessions without a first discharge are not
listed.

With --ended it lists the tombstones of ended sessions, the latest first: hard ends
for session.remember_ended, soft ends until no activation of the session is possible.` + aboutSessions,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			var h homeserverFlags
			h.declare(t, f)
			asJSON := f.Bool("json", false, "write JSON, the body of the service's answer")
			ended := f.Bool("ended", false, "list ended sessions")
			return func(ctx context.Context, args []string) error {
				if len(args) < 1 {
					return command.Usagef("sessions list: the user is missing")
				}
				client, err := h.client(t)
				if err != nil {
					return err
				}
				if *ended {
					return listEnded(t, ctx, client, args[0], *asJSON)
				}
				list, err := client.Sessions(ctx, args[0])
				if err != nil {
					return err
				}
				if *asJSON {
					return writeJSON(t, wire.SessionsResponse{Sessions: list})
				}
				return writeSessions(t, list)
			}
		},
	}
}

func listEnded(t *command.Terminal, ctx context.Context, client *client.Client, user string, asJSON bool) error {
	list, err := client.EndedSessions(ctx, user)
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(t, wire.EndedResponse{Ended: list})
	}
	return writeEnded(t, list)
}

func sessionID(text string) (caveat.SessionID, error) {
	id, err := caveat.ParseSessionID(text)
	if err != nil {
		return id, command.Usagef("%s is not the id of a session: %v", command.Quoted(text), err)
	}
	if id == (caveat.SessionID{}) {
		return id, command.Usagef("%s is not the id of a session: it is zero", command.Quoted(text))
	}
	return id, nil
}
