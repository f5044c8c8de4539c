package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/marker"
)

// Bolt is a store in a file together with its journal.
type Bolt struct {
	*bolt.Store
	journal *journal.Journal // nil: there is none
}

// Close closes both, the journal last.
func (b *Bolt) Close() error {
	err := b.Store.Close()
	if b.journal != nil {
		err = errors.Join(err, b.journal.Close())
	}
	return err
}

// journalWait bounds the wait for another process to close the journal.
const journalWait = time.Second

// BoltConfig returns the settings of the store, with its journal opened.
func BoltConfig(cfg *config.Config, log *slog.Logger, now func() time.Time) (bc bolt.Config, err error) {
	bc = bolt.Config{
		Path: cfg.BoltFile(), Marker: marker.FileMarker(setup.MarkerFile(cfg)), MaxEvents: cfg.Feed.Events, Log: log,
	}.WithClock(now)
	if j := cfg.Journal(); j.Enabled {
		bc.Journal, err = journal.Open(journal.Config{
			Path: cfg.JournalFile(), Window: j.Window, MaxEntries: j.Entries, Log: log, LockWait: journalWait,
		}.WithClock(now))
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

// freshKeys is the age up to which keys are those of a new service, with a new store.
const freshKeys = time.Minute

func openBolt(cfg *config.Config, keys *keyfile.Ring, p *Params) (Store, error) {
	lacks := exists(cfg.BoltFile()) && !exists(cfg.JournalFile()) && cfg.Journal().Enabled
	bc, err := BoltConfig(cfg, p.Log, p.Now)
	if err != nil {
		return nil, err
	}
	bc.Replayer = p.Replayer
	opened, err := bolt.Open(bc)
	if err == nil && lacks {
		p.Log.LogAttrs(context.Background(), slog.LevelWarn,
			"journal is new but the store is not: earlier revocations cannot be replayed if an older copy of the store is restored",
			slog.String("path", cfg.JournalFile()))
	}
	if err == nil {
		if err = registerBolt(p.Registry, opened, bc.Journal); err != nil {
			err = errors.Join(err, opened.Close())
		}
	}
	if err != nil {
		if bc.Journal != nil {
			err = errors.Join(err, bc.Journal.Close())
		}
		return nil, err
	}
	if key := keys.Of(keyfile.Store)[0]; opened.Created() && p.Now().Sub(key.Created) > freshKeys {
		p.Log.LogAttrs(context.Background(), slog.LevelWarn,
			"store is new: sessions minted before now are answered session_lost and need a new login", slog.String("path", bc.Path))
	}
	return &Bolt{opened, bc.Journal}, nil
}
