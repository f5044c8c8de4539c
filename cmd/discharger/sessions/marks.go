package sessions

import (
	"context"
	"fmt"
	"strings"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/wire"
)

func marksCommand() command.Command {
	return command.Command{
		Name: "sessions marks", Args: "[flags] [user]", Short: "As a homeserver: show revocation marks, and lift those in the future.", Max: 1,
		Example: `discharger sessions marks --key homeserver.json @alice:example.org
discharger sessions marks --key homeserver.json --lift`,
		Long: `
A mark is the time of the last revocation of all sessions of a homeserver, a user or
a device, by the store's clock. It covers sessions that were minted before and have
no first discharge yet.

A mark in the future was made by a wrong clock. Until its time, logins that it covers
are answered with 503, neither discharged nor refused. With --lift such marks are set
to the store's time; revoked sessions stay revoked.` + aboutSessions,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			var h homeserverFlags
			h.declare(t, f)
			asJSON := f.Bool("json", false, "write JSON, the body of the service's answer")
			lift := f.Bool("lift", false, "lift marks in the future")
			return func(ctx context.Context, args []string) error {
				user := strings.Join(args, "") // at most one
				client, _, err := h.client(t)
				if err != nil {
					return err
				}
				if *lift {
					n, err := client.LiftMarks(ctx, user)
					if err != nil {
						return err
					}
					t.Say("lifted %s", plural(n, "mark"))
				}
				m, err := client.Marks(ctx, user)
				if err != nil {
					return err
				}
				if *asJSON {
					return t.JSON("", m)
				}
				return writeMarks(t, user, &m)
			}
		},
	}
}

func writeMarks(t *command.Terminal, user string, m *wire.Mark) error {
	w := t.Table("OF\tMARK\tSTATE")
	if user != "" {
		fmt.Fprintf(w, "%s\t%s\n", cell(user), markCells(m.User, m.Now))
		fmt.Fprintf(w, "devices, the latest\t%s\n", markCells(m.Device, m.Now))
	}
	fmt.Fprintf(w, "the homeserver\t%s\n", markCells(m.Homeserver, m.Now))
	return w.Flush()
}

// markCells shows the time of a mark and how far it is from the store's.
func markCells(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "-\tnone"
	case at.After(now):
		return fmt.Sprintf("%s\t%v in the future: a clock is wrong", at.Format(time.RFC3339), at.Sub(now).Round(time.Second))
	}
	return fmt.Sprintf("%s\t%s", at.Format(time.RFC3339), ago(now, at))
}
