package sessions

import (
	"context"
	"errors"
	"fmt"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/go-json-experiment/json"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/wire"
)

func watchCommand() command.Command {
	return command.Command{
		Name: "sessions watch", Args: "[flags]", Short: "As a homeserver: print revocations as they happen.",
		Example: "discharger sessions watch --key homeserver.json --wait 1h",
		Long: `
Prints the feed that a homeserver follows: first the earlier revocations that still
matter, then each new one at once, until it is interrupted. Each line has the time
until which a discharge of the revoked sessions may be valid.

With --wait it connects again after the connection is lost, and resumes.` + aboutSessions,
		Setup: func(t *command.Terminal, f *flag.FlagSet) command.Action {
			var h homeserverFlags
			h.declare(t, f)
			w := follower{t: t}
			f.BoolVar(&w.asJSON, "json", false, "write one JSON object per line")
			f.BoolVar(&w.once, "once", false, "end after the revocations up to now")
			return func(ctx context.Context, _ []string) error {
				client, _, err := h.client(t)
				if err != nil {
					return err
				}
				return w.run(ctx, client, h.wait)
			}
		},
	}
}

// follower prints a feed.
type follower struct {
	t            *command.Terminal
	asJSON, once bool
	position     string
	lastEvent    time.Time
}

var errUpToDate = errors.New("up to date")

// run prints the feed until ctx ends, or the connection is lost for longer than patience.
func (w *follower) run(ctx context.Context, c *client.Client, patience time.Duration) error {
	w.lastEvent = w.t.Now()
	for {
		err := c.FollowRevocations(ctx, w.position, w.take)
		switch {
		case errors.Is(err, errUpToDate), ctx.Err() != nil:
			return nil
		case !errors.Is(err, client.ErrUnavailable), w.t.Now().Sub(w.lastEvent) >= patience:
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *follower) take(e client.FeedEvent) error {
	w.lastEvent = w.t.Now()
	var line any
	var text string
	switch e.Kind {
	case client.FeedRevocation:
		w.position = e.Position
		line, text = e.Revocation, describe(&e.Revocation)
	case client.FeedGap:
		line, text = map[string]bool{"gap": true}, "-- some may be missing; all known revocations follow"
	case client.FeedSkipped:
		w.position = e.Position
		line, text = map[string]string{"skipped": e.Err.Error()}, "-- skipped an unknown event: "+command.Quoted(e.Err.Error())
	case client.FeedCurrent:
		line, text = map[string]bool{"current": true}, "-- up to date"
	default:
		return nil
	}
	if w.asJSON {
		b, err := json.Marshal(line)
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		text = string(b)
	}
	if _, err := fmt.Fprintln(w.t.Out, text); err != nil {
		return err
	}
	if w.once && e.Kind == client.FeedCurrent {
		return errUpToDate
	}
	return nil
}

// describe returns a line with the scope of a revocation, its reason, its kind, and the
// time until which it matters.
func describe(r *revocation.Event) string {
	what := "all sessions"
	if r.Session != (caveat.SessionID{}) {
		what = "session " + r.Session.String()
	}
	if r.User != "" {
		what += " of " + command.Quoted(r.User)
	}
	if r.Device != "" {
		what += " on " + command.Quoted(r.Device)
	}
	if r.Except != (caveat.SessionID{}) {
		what += " but " + r.Except.String()
	}
	if r.Devices {
		what += " with a device"
	}
	kind := wire.KindHard
	if r.Soft {
		kind = wire.KindSoft
	}
	return fmt.Sprintf("%s  %s: %s, %s, until %s", r.At.Format(time.RFC3339), what, command.Quoted(string(r.Reason)), kind, r.Until.Format(time.RFC3339))
}
