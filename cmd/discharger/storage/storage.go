// Package storage opens the store that a configuration names, with the journal and
// the metrics of both.
package storage

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// Params are the parts of a process that its store uses.
type Params struct {
	Registry prometheus.Registerer
	Log      *slog.Logger
	Now      func() time.Time
	Replayer store.Replayer
}

// Store is a store with the operations of operators.
type Store interface {
	store.Store
	store.Feed
	AcceptLoss(context.Context) error
}

// Open opens the store that a configuration names and registers its metrics.
func Open(ctx context.Context, cfg *config.Config, keys *keyfile.Ring, p *Params) (s Store, err error) {
	if r := cfg.Store.Redis; r != nil {
		s, err = openRedis(ctx, cfg, r, keys, p)
	} else {
		s, err = openBolt(cfg, keys, p)
	}
	return s, command.Mark(err, command.ErrUnavailable)
}

// Lifetime returns the lifetime of the service's discharges.
func Lifetime(cfg *config.Config) revocation.Lifetime {
	return revocation.Lifetime{MaxTTL: cfg.Discharge.MaxTTL, Skew: cfg.Discharge.ClockSkew}
}
