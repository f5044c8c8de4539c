package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// boltStore is a store in a file together with its journal.
type boltStore struct {
	*store.Bolt
	journal *store.Journal // nil: there is none
}

// Close closes both, the journal last.
func (b *boltStore) Close() error {
	err := b.Bolt.Close()
	if b.journal != nil {
		err = errors.Join(err, b.journal.Close())
	}
	return err
}

// journalWait is how long another process may take to leave the journal.
const journalWait = time.Second

// boltConfig returns where the store is, with its journal opened.
func boltConfig(cfg *config.Config, log *slog.Logger, now func() time.Time) (bc store.BoltConfig, err error) {
	bc = store.BoltConfig{
		Path: cfg.BoltFile(), Marker: store.FileMarker(markerFile(cfg)), MaxEvents: cfg.Feed.Events, Log: log, Now: now,
	}
	if j := cfg.Journal(); j.Enabled {
		bc.Journal, err = store.OpenJournal(store.JournalConfig{
			Path: cfg.JournalFile(), Window: j.Window, MaxEntries: j.Entries, Log: log, Now: now, LockWait: journalWait,
		})
		if err != nil {
			err = fmt.Errorf("open store %s: %w", cfg.BoltFile(), err)
		}
	}
	return bc, err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// freshKeys is how old keys are at the most for which a store is expected to be new.
const freshKeys = time.Minute

func openBolt(cfg *config.Config, keys *keyfile.Ring, p *parts) (openStore, error) {
	lacks := exists(cfg.BoltFile()) && !exists(cfg.JournalFile()) && cfg.Journal().Enabled
	bc, err := boltConfig(cfg, p.log, p.now)
	if err != nil {
		return nil, err
	}
	bc.Announce = func(e *revocation.Revocation, now time.Time) (discharger.FeedEvent, error) {
		return p.announcer.Load().Event(e, now)
	}
	opened, err := store.OpenBolt(bc)
	if err == nil && lacks {
		p.log.LogAttrs(context.Background(), slog.LevelWarn,
			"journal is new although the store is not: revocations before now cannot be made again if an older copy of the store is put back",
			slog.String("path", cfg.JournalFile()))
	}
	if err == nil {
		if err = registerBolt(p.registry, opened, bc.Journal); err != nil {
			err = errors.Join(err, opened.Close())
		}
	}
	if err != nil {
		if bc.Journal != nil {
			err = errors.Join(err, bc.Journal.Close())
		}
		return nil, err
	}
	if key := keys.Of(keyfile.Store)[0]; opened.Created() && p.now().Sub(key.Created) > freshKeys {
		p.log.LogAttrs(context.Background(), slog.LevelWarn,
			"store is new: sessions that were minted before now are answered session_lost, and log in again", slog.String("path", bc.Path))
	}
	return &boltStore{opened, bc.Journal}, nil
}

// storeLost shows whether a store has lost data, of either kind.
func storeLost(s interface{ Lost() bool }) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "discharger_store_lost", Help: "1 while the store has lost data and an operator has not accepted that, else 0.",
	}, func() float64 { return oneIf(s.Lost()) })
}

func oneIf(set bool) float64 {
	if set {
		return 1
	}
	return 0
}

// registerBolt shows what the store has lost, and what its journal does.
func registerBolt(reg prometheus.Registerer, s *store.Bolt, j *store.Journal) error {
	gauge := func(name, help string, get func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, get)
	}
	for _, c := range []prometheus.Collector{
		storeLost(s),
		gauge("discharger_store_loss_timestamp_seconds", "When the store was made, or a loss of data was accepted last, Unix time; 0: never.",
			func() float64 { return float64(s.Losses().Missing) / 1000 }),
		gauge("discharger_store_revocations_lost_timestamp_seconds", "When data that may lack revocations was accepted last, Unix time; 0: never.",
			func() float64 { return float64(s.Losses().All) / 1000 }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	if j == nil {
		return nil
	}
	err := reg.Register(gauge("discharger_journal_damaged", "1 if the journal is damaged, else 0.",
		func() float64 { return oneIf(j.Damage() != nil) }))
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return registerJournal(reg, s)
}
