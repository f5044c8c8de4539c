// Package storage opens the store that a configuration names, with the journal and
// the metrics of both.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
)

// Params are the parts of a process that its store uses.
type Params struct {
	Registry prometheus.Registerer
	Log      *slog.Logger
	Now      func() time.Time
	Replayer store.Replayer
}

// Store is a store with the operations of operators, and its journal.
type Store struct {
	operated
	Bolt    *bolt.Store      // nil: the store is in Redis
	Redis   *redis.Store     // nil: the store is in a file
	journal *journal.Journal // nil: there is none
}

type operated interface {
	store.Store
	store.Feed
	AcceptLoss(context.Context) error
}

// Open opens the store that a configuration names and registers its metrics.
func Open(ctx context.Context, cfg *config.Config, keys *keyfile.Ring, p *Params) (*Store, error) {
	s := new(Store)
	open := s.openBolt
	if cfg.Store.Redis != nil {
		open = s.openRedis
	}
	if err := open(ctx, cfg, keys, p); err != nil {
		return nil, command.Mark(errors.Join(err, s.Close()), command.ErrUnavailable)
	}
	return s, nil
}

// Close closes both, the journal last.
func (s *Store) Close() (err error) {
	if s.operated != nil {
		err = s.operated.Close()
	}
	if s.journal != nil {
		err = errors.Join(err, s.journal.Close())
	}
	return err
}

// Lifetime returns the lifetime of the service's discharges.
func Lifetime(cfg *config.Config) revocation.Lifetime {
	return revocation.Lifetime{MaxTTL: cfg.Discharge.MaxTTL, Skew: cfg.Discharge.ClockSkew}
}

// JournalConfig returns the settings of the journal.
func JournalConfig(cfg *config.Config, log *slog.Logger, now func() time.Time) journal.Config {
	j := cfg.Journal()
	return journal.Config{Path: cfg.JournalFile(), Window: j.Window, MaxEntries: j.Entries, Log: log}.WithClock(now)
}

// maxJournals bounds the processes that share a data directory.
const maxJournals = 64

// openJournal opens the first journal that no process uses: journal.db, or journal-2.db,
// where several processes share a directory. It takes over the entries of the other
// unused journals, whose processes have ended.
func openJournal(ctx context.Context, jc journal.Config) (own *journal.Journal, err error) {
	base, ext := jc.Path, filepath.Ext(jc.Path)
	jc.LockWait = 20 * time.Millisecond
	for i := 1; i <= maxJournals; i++ {
		if i > 1 {
			jc.Path = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(base, ext), i, ext)
			if _, err := os.Stat(jc.Path); own != nil && errors.Is(err, fs.ErrNotExist) {
				break // names are used in order
			}
		}
		var adopted int
		if own == nil {
			own, err = journal.Open(jc)
		} else if adopted, err = own.Adopt(ctx, jc.Path); adopted > 0 {
			jc.Log.LogAttrs(ctx, slog.LevelInfo, "took over journal of another process",
				slog.String("path", jc.Path), slog.Int("entries", adopted))
		}
		if err != nil && !errors.Is(err, journal.ErrInUse) {
			if own != nil {
				err = errors.Join(err, own.Close())
			}
			return nil, err
		}
	}
	if own == nil {
		return nil, fmt.Errorf("open journal: %d processes have one beside %s", maxJournals, base)
	}
	return own, nil
}
