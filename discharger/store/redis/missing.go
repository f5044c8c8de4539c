package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/limits"
)

// A revocation can outlive its event: in a cluster the two are on different
// nodes, and elsewhere a replica may have been sent one and not the other. Its
// records show nothing of that. So a replay looks through the feeds too, from
// the oldest entry on that discharges may outlive, and publishes what is not
// there. A homeserver's revocation and its event cannot be parted.

// publishMissing makes feeds have what entries say, for as long as their own
// revocation had it there.
func (g *guardian) publishMissing(ctx context.Context, entries []revocation.Revocation) error {
	missing := make(map[string]facts)
	since := make(map[string]int64)
	now := g.store.cfg.Now()
	for i := range entries {
		e := &entries[i]
		if e.Kind == revocation.KindHomeserver || e.Kind == revocation.KindDevice {
			continue // the one has its event in the same script, the other needs none
		}
		if event, err := g.firstEvent(e); err != nil || event.Data == nil || !event.Until.After(now) {
			continue
		}
		of := missing[e.Homeserver]
		if of == nil {
			of = make(facts)
			missing[e.Homeserver], since[e.Homeserver] = of, e.At
		}
		of[factOf(e)] = e
		since[e.Homeserver] = min(since[e.Homeserver], e.At)
	}
	for homeserver, of := range missing {
		if err := g.strike(ctx, homeserver, since[homeserver], of); err != nil {
			return fmt.Errorf("look for missing events: %w", err)
		}
		for some := range slices.Chunk(slices.Collect(maps.Values(of)), announceAtOnce) {
			events := make([]store.FeedEvent, len(some))
			for i, e := range some {
				var err error
				if events[i], err = g.firstEvent(e); err != nil {
					return err
				}
			}
			if err := g.store.publish(ctx, homeserver, events, false); err != nil {
				return fmt.Errorf("publish missing events: %w", err)
			}
			g.missing.Add(uint64(len(events)))
		}
	}
	return nil
}

// firstEvent is kept as long as that of the revocation itself.
func (g *guardian) firstEvent(e *revocation.Revocation) (store.FeedEvent, error) {
	return g.store.cfg.Announce(e, time.UnixMilli(e.At))
}

// facts are entries by what they have in common with their events.
type facts map[revocation.Revocation]*revocation.Revocation

// factOf is what an entry and its event have in common.
func factOf(e *revocation.Revocation) revocation.Revocation {
	if e.Kind == revocation.KindSession {
		return revocation.Revocation{Kind: e.Kind, Session: e.Session}
	}
	return revocation.Revocation{Kind: e.Kind, User: e.User, Except: e.Except, At: e.At}
}

// factOfEvent is the same of an event; of one that is not about a session or a
// user, or cannot be read, it is something that no entry says.
func factOfEvent(data string) revocation.Revocation {
	e, err := revocation.ParseEvent([]byte(data))
	switch {
	case err != nil || e.All || e.Session == (caveat.SessionID{}) && e.Device != "":
		return revocation.Revocation{}
	case e.Session != (caveat.SessionID{}):
		return revocation.Revocation{Kind: revocation.KindSession, Session: e.Session}
	}
	return revocation.Revocation{Kind: revocation.KindUser, User: e.User, Except: e.Except, At: e.At.UnixMilli()}
}

// strike takes out of what is missing what a feed has. If the feed had too many
// events, nobody knows what it would have if it had kept them: then nothing is
// missing.
func (g *guardian) strike(ctx context.Context, homeserver string, since int64, missing facts) error {
	feed, lost, _ := g.store.layout.feed(homeserver)
	full := redis.NewIntCmd(ctx, "exists", lost)
	if err := g.store.client.do(ctx, full); err != nil {
		return err
	}
	if n, err := full.Result(); err != nil || n > 0 {
		clear(missing)
		return err
	}
	// The ids are times by the server's clock.
	from := strconv.FormatInt(max(since-session.ClockSlack.Milliseconds(), 0), 10)
	for len(missing) > 0 {
		page := redis.NewXMessageSliceCmd(ctx, "xrange", feed, from, "+", "count", limits.FeedPage)
		if err := g.store.client.do(ctx, page); err != nil {
			return err
		}
		messages, err := page.Result()
		if err != nil {
			return err
		}
		for _, m := range messages {
			data, _ := m.Values["e"].(string)
			delete(missing, factOfEvent(data))
			from = "(" + m.ID
		}
		if len(messages) < limits.FeedPage {
			return nil
		}
	}
	return nil
}
