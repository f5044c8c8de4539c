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

// boltStore is a store in a file together with its journal.
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

// journalWait is how long another process may take to leave the journal.
const journalWait = time.Second

// boltConfig returns where the store is, with its journal opened.
func BoltConfig(cfg *config.Config, log *slog.Logger, now func() time.Time) (bc bolt.Config, err error) {
	bc = bolt.Config{
		Path: cfg.BoltFile(), Marker: marker.FileMarker(setup.MarkerFile(cfg)), MaxEvents: cfg.Feed.Events, Log: log, Now: now,
	}
	if j := cfg.Journal(); j.Enabled {
		bc.Journal, err = journal.Open(journal.Config{
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

func openBolt(cfg *config.Config, keys *keyfile.Ring, p *Params) (Store, error) {
	lacks := exists(cfg.BoltFile()) && !exists(cfg.JournalFile()) && cfg.Journal().Enabled
	bc, err := BoltConfig(cfg, p.Log, p.Now)
	if err != nil {
		return nil, err
	}
	bc.Announce = p.Announce
	opened, err := bolt.Open(bc)
	if err == nil && lacks {
		p.Log.LogAttrs(context.Background(), slog.LevelWarn,
			"journal is new although the store is not: revocations before now cannot be made again if an older copy of the store is put back",
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
			"store is new: sessions that were minted before now are answered session_lost, and log in again", slog.String("path", bc.Path))
	}
	return &Bolt{opened, bc.Journal}, nil
}
