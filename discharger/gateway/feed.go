package gateway

import (
	"context"
	"log/slog"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
)

// newFeed makes what follows the service's revocations.
func (g *Gateway) newFeed() (*homeserver.Feed, error) {
	return homeserver.NewFeed(homeserver.FeedConfig{
		Client: g.client, OnEvent: g.revoked, OnGap: g.missed, Leeway: g.cfg.Leeway, Clock: g.cfg.Clock, Jitter: g.cfg.Jitter,
	})
}

// follow runs the feed until ctx ends.
func (g *Gateway) follow(ctx context.Context) {
	if err := g.feed.Run(ctx); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot follow revocations", slog.Any("error", err))
	}
}

// revoked takes note of a revocation. What was ended through the gateway is not
// in the vault any more; the rest is logged out at the homeserver, so that its
// devices do not go on receiving keys.
//
// A policy may have decided that a client is to come back with the keys it has.
// Whether it did is only known when the session is asked for again.
func (g *Gateway) revoked(r api.Revocation) {
	if r.Reason == api.RevokedPolicy {
		return
	}
	ids, err := g.vault.condemnRevoked(r)
	if err != nil {
		g.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "cannot note what was revoked", slog.Any("error", err))
	}
	if len(ids) > 0 {
		g.cfg.Log.LogAttrs(context.Background(), slog.LevelInfo, "logging out what was revoked",
			slog.Int("sessions", len(ids)), slog.String("reason", r.Reason))
		g.wake()
	}
}

// missed is called when revocations may have been missed.
func (g *Gateway) missed() {
	select {
	case g.gap <- struct{}{}:
	default:
	}
}

// alive gives a refusal for a session that is known to be over.
func (g *Gateway) alive(id homeserver.Identity) error {
	if soft, dead := g.dead.get(id.Session); dead {
		return &api.RefusedError{Reason: api.ReasonSessionEnded, SoftLogout: soft, Message: "logged out"}
	}
	return nil
}

// heardOver gives a refusal for a session in mode rotate that the feed says is
// over.
func (g *Gateway) heardOver(id homeserver.Identity) error {
	if !g.feed.Revoked(id) {
		return nil
	}
	return &api.RefusedError{Reason: api.ReasonSessionEnded, SoftLogout: g.softly(id.Session), Message: "revoked"}
}

// softly tells whether keys are to be kept of a session that the feed says is
// over. If it is not in the vault any more, it was logged out for good.
func (g *Gateway) softly(id caveat.SessionID) bool { return g.vault.has(id) }
