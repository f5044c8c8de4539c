package outbox

import (
	"context"
	"log/slog"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// Revoked applies a revocation from the feed. After a hard end, devices are logged out
// at the homeserver, so that they receive no more keys; after a soft end they stay.
// Sessions whose devices the homeserver has deleted are not in the file any more.
func (b *Outbox) Revoked(r revocation.Event) {
	ctx := context.Background()
	if r.Session == (caveat.SessionID{}) {
		b.events.Add(1)
	}
	ids, err := b.Store.revoke(r)
	if _, dead := b.Ends.Get(r.Session); !dead && r.Session != (caveat.SessionID{}) {
		b.Ends.Put(r.Session, End{Soft: r.Soft, Cause: r.Reason, at: r.At.UnixMilli(), Settled: len(ids) > 0})
		b.cfg.OnEnd(r.Session)
	}
	b.cfg.OnChange()
	if err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record revocation", slog.Any("error", err))
	}
	if len(ids) > 0 {
		b.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "logging out devices of revoked sessions",
			slog.Int("sessions", len(ids)), slog.String("reason", string(r.Reason)))
		b.Wake()
	}
}

// Missed starts a pass of reconciling, since revocations may have been missed.
func (b *Outbox) Missed() { signal(b.gap) }
