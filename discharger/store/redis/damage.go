package redis

import (
	"context"
	"log/slog"
)

// A store whose journal is damaged stays shut: what cannot be read may be what a
// primary lacks. An operator accepts that with AcceptLoss. It costs nobody a
// session if the primaries are those that had all of the journal when it was
// written last.

// damaged logs that the journal is damaged when the store is opened, and reports
// whether it is.
func (g *guardian) damaged(ctx context.Context) bool {
	err := g.journal.Damage()
	if err != nil {
		g.store.cfg.Log.LogAttrs(ctx, slog.LevelError, "journal is damaged, the store stays shut until that is accepted", slog.Any("error", err))
	}
	return err != nil
}

// acceptDamage begins a damaged journal anew, and reports whether revocations may
// be missing in the primaries.
func (g *guardian) acceptDamage(ctx context.Context) (missing bool, err error) {
	if g.journal.Damage() == nil {
		return false, nil
	}
	found, err := g.primaries(ctx)
	if err != nil {
		return false, err
	}
	known := g.journal.LastPrimaries()
	if _, _, err := g.journal.Renew(ctx); err != nil {
		return false, err
	}
	return known == nil || !subset(found, known), nil
}
