// Package sessions has the commands of a homeserver that list, revoke and watch its
// sessions. They authenticate with the homeserver's API key, which comes from a key
// file or from the environment, and never from a flag.
package sessions

import (
	"cmp"
	"context"
	"fmt"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/wire"
)

// Commands returns the commands "sessions …".
func Commands() []command.Command {
	return []command.Command{
		listCommand(), revokeCommand(), revokeUserCommand(), revokeDeviceCommand(), revokeAllCommand(),
		marksCommand(), watchCommand(),
	}
}

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
// environment: other users of the machine can read flags. The name of the homeserver is
// that in the key file, if any.
func (h *homeserverFlags) client(t *command.Terminal) (c *client.Client, name string, err error) {
	cfg := client.Config{URL: h.service, UserAgent: "discharger", Patience: cmp.Or(h.wait, -1)} // -1: one attempt
	if h.key != "" {
		ring, err := setup.HomeserverKeys(h.key)
		if err != nil {
			return nil, "", err
		}
		cfg.APIKey, cfg.URL, name = ring.Of(keyfile.API)[0].APIKey(), cmp.Or(cfg.URL, ring.Peer.Service), ring.Peer.Name
	} else if cfg.APIKey = secret.Bytes(t.Env(apiKeyVariable, "")); len(cfg.APIKey) == 0 {
		return nil, "", command.Usagef("no API key: give --key, or set $%s", apiKeyVariable)
	}
	cfg.URL = cmp.Or(cfg.URL, setup.DefaultService)
	c, err = client.New(cfg)
	return c, name, err
}

const aboutSessions = `
It calls the service as the homeserver, with the API key from its key file or from
$DISCHARGER_API_KEY, and reaches the sessions of this homeserver only.`

func listCommand() command.Command {
	return command.Command{
		Name: "sessions list", Args: "[flags] <user>", Short: "As a homeserver: list a user's sessions.",
		Needs: []string{"user"}, Max: 1,
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
				client, _, err := h.client(t)
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
					return t.JSON("", wire.SessionsResponse{Sessions: list})
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
		return t.JSON("", wire.EndedResponse{Ended: list})
	}
	return writeEnded(t, list)
}

// writeSessions writes a table of sessions, with the names of clients escaped.
func writeSessions(t *command.Terminal, list []wire.SessionInfo) error {
	if len(list) == 0 {
		t.Say("no sessions")
		return nil
	}
	w := t.Table("SESSION\tDEVICE\tLAST USED\tFROM\tCLIENT\tLOGGED IN\tMODE\tEPOCH\tPOLICY")
	for _, s := range list {
		from := "-"
		if s.LastIP.IsValid() {
			from = s.LastIP.String()
		}
		epoch := "-"
		if s.Mode == "rotate" {
			epoch = fmt.Sprint(s.Epoch)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, cell(s.Device), ago(t.Now(), s.LastUsed), from,
			cell(s.LastClient), ago(t.Now(), s.Created), cell(s.Mode), epoch, cell(s.Policy))
	}
	return w.Flush()
}

// writeEnded writes a table of sessions that ended.
func writeEnded(t *command.Terminal, list []wire.EndedSession) error {
	if len(list) == 0 {
		t.Say("no ended sessions")
		return nil
	}
	w := t.Table("SESSION\tDEVICE\tENDED\tKIND\tREASON")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", s.ID, cell(s.Device), ago(t.Now(), s.At), cell(s.Kind), cell(s.Reason))
	}
	return w.Flush()
}

// cell returns a text from outside for a column of a table.
func cell(s string) string {
	const most = 40
	if s == "" {
		return "-"
	}
	s = command.Quoted(s)
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// ago returns the time since then in its largest unit.
func ago(now, then time.Time) string {
	d := now.Sub(then)
	for _, unit := range []struct {
		length time.Duration
		name   string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		switch n := int(d / unit.length); {
		case n == 1:
			return "1 " + unit.name + " ago"
		case n > 1:
			return fmt.Sprintf("%d %ss ago", n, unit.name)
		}
	}
	return "just now"
}
