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
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redis/conn"
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

// RedisConfig returns the settings of the store, without a journal. It routes the log of
// the Redis client to log.
func RedisConfig(cfg *config.Config, keys *keyfile.Ring, log *slog.Logger, now func() time.Time) (rc redis.Config, err error) {
	r := cfg.Store.Redis
	conn.SetLog(log)
	tag := keys.Of(keyfile.Store)[0].Secret()
	rc = redis.Config{
		Addrs: r.Addresses, MasterName: r.MasterName, Cluster: r.Cluster, DB: r.DB,
		TagKey: tag[:], Marker: marker.FileMarker(setup.MarkerFile(cfg)),
		Durability: redis.Durability(r.Durability), Replicas: r.Replicas,
		DialTimeout: r.Timeouts.Dial, ReadTimeout: r.Timeouts.Read, WriteTimeout: r.Timeouts.Write,
		PoolSize: r.PoolSize, Unpipelined: !r.Pipelining, MaxEvents: cfg.Feed.Events,
		SessionLife: sessionLife(cfg), Log: log,
	}.WithClock(now)
	rc.Access, err = RedisAccess(r)
	return rc, err
}

// RedisAccess returns the configured passwords and certificates.
func RedisAccess(r *config.Redis) (a conn.Access, err error) {
	a = conn.Access{
		Username: r.Username, Password: r.Password,
		SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword,
	}
	if r.TLS != nil {
		a.TLS, err = r.TLS.Load()
	}
	return a, err
}

func (s *Store) openRedis(ctx context.Context, cfg *config.Config, keys *keyfile.Ring, p *Params) error {
	rc, err := RedisConfig(cfg, keys, p.Log, p.Now)
	if err != nil {
		return err
	}
	rc.Replayer, rc.AwaitServers = p.Replayer, true
	if cfg.Journal().Enabled {
		if s.journal, err = openJournal(ctx, JournalConfig(cfg, p.Log, p.Now)); err != nil {
			return err
		}
		rc.Journal = s.journal
	}
	if s.Redis, err = redis.Open(ctx, rc); err != nil {
		return err
	}
	s.operated = s.Redis
	return registerRedis(p.Registry, s.Redis, s.journal)
}

// sessionLife returns how long after its last use a client can come back with a
// session that the store has lost; 0: for ever.
func sessionLife(cfg *config.Config) time.Duration {
	idle, absolute := cfg.Session.Idle, cfg.Session.Absolute
	if idle == 0 || absolute > 0 && absolute < idle {
		return absolute
	}
	return idle
}
