package storage

import (
	"context"
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

// BoltConfig returns the settings of the store, with its journal opened.
func BoltConfig(cfg *config.Config, log *slog.Logger, now func() time.Time) (bc bolt.Config, err error) {
	bc = bolt.Config{
		Path: cfg.BoltFile(), Marker: marker.FileMarker(setup.MarkerFile(cfg)), MaxEvents: cfg.Feed.Events, Log: log,
	}.WithClock(now)
	if cfg.Journal().Enabled {
		jc := JournalConfig(cfg, log, now)
		jc.LockWait = time.Second
		if bc.Journal, err = journal.Open(jc); err != nil {
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

func (s *Store) openBolt(_ context.Context, cfg *config.Config, keys *keyfile.Ring, p *Params) error {
	lacks := exists(cfg.BoltFile()) && !exists(cfg.JournalFile()) && cfg.Journal().Enabled
	bc, err := BoltConfig(cfg, p.Log, p.Now)
	if err != nil {
		return err
	}
	s.journal, bc.Replayer = bc.Journal, p.Replayer
	if s.Bolt, err = bolt.Open(bc); err != nil {
		return err
	}
	s.operated = s.Bolt
	if lacks {
		p.Log.Warn("journal is new but the store is not: earlier revocations cannot be replayed if an older copy of the store is restored",
			slog.String("path", cfg.JournalFile()))
	}
	if err := registerBolt(p.Registry, s.Bolt, s.journal); err != nil {
		return err
	}
	if key := keys.Of(keyfile.Store)[0]; s.Bolt.Created() && p.Now().Sub(key.Created) > freshKeys {
		p.Log.Warn("store is new: sessions minted before now are answered session_lost and need a new login", slog.String("path", bc.Path))
	}
	return nil
}
