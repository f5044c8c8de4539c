package main

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

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// redisStore is a store in Redis together with this process's journal.
type redisStore struct {
	*store.Redis
	journal *store.Journal // nil: there is none
}

// Close closes both, the journal last.
func (r *redisStore) Close() error {
	err := r.Redis.Close()
	if r.journal != nil {
		err = errors.Join(err, r.journal.Close())
	}
	return err
}

// redisConfig returns where the store is, without a journal. From then on the Redis
// client logs to log too.
func redisConfig(cfg *config.Config, r *config.Redis, keys *keyfile.Ring, log *slog.Logger, now func() time.Time) (rc store.RedisConfig, err error) {
	store.SetRedisLog(log)
	tag := keys.Of(keyfile.Store)[0].Secret()
	rc = store.RedisConfig{
		Addrs: r.Addresses, MasterName: r.MasterName, Cluster: r.Cluster, DB: r.DB,
		TagKey: tag[:], Marker: store.FileMarker(markerFile(cfg)),
		Durability: store.Durability(r.Durability), Replicas: r.Replicas,
		DialTimeout: r.Timeouts.Dial, ReadTimeout: r.Timeouts.Read, WriteTimeout: r.Timeouts.Write,
		PoolSize: r.PoolSize, Unpipelined: !r.Pipelining, MaxEvents: cfg.Feed.Events,
		SessionLife: sessionLife(cfg),
		Log:         log, Now: now,
	}
	rc.RedisAccess, err = redisAccess(r)
	return rc, err
}

// redisAccess returns passwords and certificates, as a configuration has them.
func redisAccess(r *config.Redis) (a store.RedisAccess, err error) {
	a = store.RedisAccess{
		Username: r.Username, Password: r.Password,
		SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword,
	}
	if r.TLS != nil {
		a.TLS, err = r.TLS.Load()
	}
	return a, err
}

func openRedis(ctx context.Context, cfg *config.Config, r *config.Redis, keys *keyfile.Ring, p *parts) (openStore, error) {
	rc, err := redisConfig(cfg, r, keys, p.log, p.now)
	if err != nil {
		return nil, err
	}
	rc.Announce = func(e *revocation.Revocation, now time.Time) (discharger.FeedEvent, error) {
		return p.announcer.Load().Event(e, now)
	}
	if r.Journal.Enabled {
		rc.Journal, err = openJournal(ctx, store.JournalConfig{
			Path: cfg.JournalFile(), Window: r.Journal.Window, MaxEntries: r.Journal.Entries, Log: p.log, Now: p.now,
		})
		if err != nil {
			return nil, err
		}
	}
	rc.AwaitServers = true
	opened, err := store.OpenRedis(ctx, rc)
	if err == nil {
		err = registerRedis(p.registry, opened)
		if err == nil && rc.Journal != nil {
			err = registerJournal(p.registry, opened)
		}
		if err != nil {
			err = errors.Join(err, opened.Close())
		}
	}
	if err != nil {
		if rc.Journal != nil {
			err = errors.Join(err, rc.Journal.Close())
		}
		return nil, err
	}
	return &redisStore{opened, rc.Journal}, nil
}

// maxJournals is how many processes may share a data directory.
const maxJournals = 64

// openJournal opens the first journal that nobody uses: journal.db, or
// journal-2.db, where several processes share a directory. What is in the
// others that nobody uses was left behind, and is taken over.
func openJournal(ctx context.Context, jc store.JournalConfig) (own *store.Journal, err error) {
	base, ext := jc.Path, filepath.Ext(jc.Path)
	jc.LockWait = 20 * time.Millisecond
	for i := 1; i <= maxJournals; i++ {
		if i > 1 {
			jc.Path = fmt.Sprintf("%s-%d%s", strings.TrimSuffix(base, ext), i, ext)
			if _, err := os.Stat(jc.Path); own != nil && errors.Is(err, fs.ErrNotExist) {
				break // they are taken in turn
			}
		}
		var adopted int
		if own == nil {
			own, err = store.OpenJournal(jc)
		} else if adopted, err = own.Adopt(ctx, jc.Path); adopted > 0 {
			jc.Log.LogAttrs(ctx, slog.LevelInfo, "took over a journal of revocations",
				slog.String("path", jc.Path), slog.Int("entries", adopted))
		}
		if err != nil && !errors.Is(err, store.ErrJournalInUse) {
			if own != nil {
				err = errors.Join(err, own.Close())
			}
			return nil, err
		}
	}
	if own == nil {
		return nil, fmt.Errorf("open journal: %d other processes have one beside %s", maxJournals, base)
	}
	return own, nil
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

// registerRedis shows what the store has seen of its servers.
func registerRedis(reg prometheus.Registerer, s *store.Redis) error {
	since := func(name, help string, get func(store.Losses) time.Time) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			at := get(s.Stats().Losses)
			if at.IsZero() {
				return 0
			}
			return float64(at.UnixMilli()) / 1000
		})
	}
	for _, c := range []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "discharger_redis_evicted_keys_total", Help: "Keys that the servers have evicted since the start: sessions and revocations may be lost.",
		}, func() float64 { return float64(s.Stats().Evicted) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "discharger_redis_refused", Help: "1 while a primary may evict keys and the store answers nothing, else 0.",
		}, func() float64 { return oneIf(s.Stats().Refused) }),
		storeLost(s),
		since("discharger_store_born_timestamp_seconds", "When the store was made, Unix time; 0: by an earlier version.",
			func(l store.Losses) time.Time { return l.Born }),
		since("discharger_store_loss_timestamp_seconds", "When a loss of data was accepted last, Unix time; 0: never.",
			func(l store.Losses) time.Time { return l.Missing }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// registerJournal shows what the journal does.
func registerJournal(reg prometheus.Registerer, s interface{ JournalStats() store.JournalStats }) error {
	gauge := func(name, help string, get func(store.JournalStats) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return get(s.JournalStats()) })
	}
	counter := func(name, help string, get func(store.JournalStats) uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(get(s.JournalStats())) })
	}
	for _, c := range []prometheus.Collector{
		gauge("discharger_journal_entries", "Revocations in this process's journal.",
			func(j store.JournalStats) float64 { return float64(j.Entries) }),
		gauge("discharger_journal_bytes", "Size of the journal's file.",
			func(j store.JournalStats) float64 { return float64(j.Bytes) }),
		gauge("discharger_journal_shut", "1 while revocations are being replayed and the store answers nothing, else 0.",
			func(j store.JournalStats) float64 { return oneIf(j.Shut) }),
		gauge("discharger_journal_failover_timestamp_seconds", "When another primary was met last, Unix time; 0: not since the start.",
			func(j store.JournalStats) float64 {
				if j.LastFailover.IsZero() {
					return 0
				}
				return float64(j.LastFailover.UnixMilli()) / 1000
			}),
		counter("discharger_journal_added_total", "Revocations written to the journal.",
			func(j store.JournalStats) uint64 { return j.Added }),
		counter("discharger_journal_dropped_total", "Entries removed before their time because the journal was full.",
			func(j store.JournalStats) uint64 { return j.Dropped }),
		counter("discharger_journal_replays_total", "Times that the journal was replayed, at the start and after failovers.",
			func(j store.JournalStats) uint64 { return j.Replays }),
		counter("discharger_journal_replayed_total", "Records that a replay had to mend: revocations that were lost.",
			func(j store.JournalStats) uint64 { return j.Replayed }),
		counter("discharger_journal_missing_events_total", "Events that a replay had to publish again, whose revocations were not lost.",
			func(j store.JournalStats) uint64 { return j.Missing }),
	} {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}
