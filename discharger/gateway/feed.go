package gateway

import (
	"context"
	"log/slog"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// newFeed makes the follower of the service's revocations.
func (g *Gateway) newFeed() (*homeserver.Feed, error) {
	return homeserver.NewFeed(homeserver.FeedConfig{
		Client: g.client, OnEvent: g.revoked, OnGap: g.missed, OnCurrent: g.recovered, OnDisconnect: g.disconnected,
		Log: g.cfg.Log, Leeway: g.cfg.Leeway,
	}.WithClock(g.cfg.Clock))
}

// follow runs the feed until ctx ends.
func (g *Gateway) follow(ctx context.Context) {
	go g.reconnect(ctx)
	if err := g.feed.Run(ctx); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot follow revocations", slog.Any("error", err))
	}
}

// revoked takes note of a revocation. After a hard end devices are logged out at
// the homeserver, so that they do not go on receiving keys; after a soft one they
// stay. Sessions whose devices the homeserver has deleted already are not in the
// vault any more.
func (g *Gateway) revoked(r wire.Revocation) {
	ctx := context.Background()
	if r.Session == (caveat.SessionID{}) {
		g.events.Add(1)
	}
	ids, err := g.vault.revoke(r)
	if _, dead := g.dead.get(r.Session); !dead && r.Session != (caveat.SessionID{}) {
		g.dead.put(r.Session, ending{soft: r.Soft, reason: r.Reason, at: r.At.UnixMilli(), settled: len(ids) > 0})
		g.held.drop(r.Session)
		g.opened.remove(r.Session)
	}
	g.link.changed()
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "revocation cannot be written down", slog.Any("error", err))
	}
	if len(ids) > 0 {
		g.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "logging out devices of revoked sessions",
			slog.Int("sessions", len(ids)), slog.String("reason", r.Reason))
		g.wake()
	}
}

// recovered is called when the feed has become current, and ends every pause
// after calls to the service that were not decided.
func (g *Gateway) recovered() {
	if outage := g.link.connected(); outage > 0 {
		g.cfg.Log.LogAttrs(context.Background(), slog.LevelInfo, "service is available again", slog.Duration("outage", outage))
	}
	g.seen.wake()
	g.wake()
}

// disconnected is called when the feed's connection has ended or failed. It logs an
// outage when a second attempt in a row has failed: a service that restarts or reads
// new keys ends the connection too.
func (g *Gateway) disconnected(err error) {
	if g.link.disconnected() && !g.polls.isDrained() {
		g.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, "service is unavailable, retrying; sessions go on until their discharges run out",
			slog.Any("error", err))
	}
	select {
	case g.feedLost <- struct{}{}:
	default:
	}
}

// reconnect ends the feed's pauses early, until ctx ends.
func (g *Gateway) reconnect(ctx context.Context) {
	for {
		select {
		case <-g.feedLost:
		case <-ctx.Done():
			return
		}
		if g.link.waitFeed(ctx, feedPause) != nil {
			return
		}
		g.feed.Reconnect()
	}
}

// missed is called when revocations may have been missed.
func (g *Gateway) missed() {
	select {
	case g.gap <- struct{}{}:
	default:
	}
}
