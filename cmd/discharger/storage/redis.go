package storage

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redis/conn"
)

// Redis is a store in Redis together with this process's journal.
type Redis struct {
	*redis.Store
	journal *journal.Journal // nil: there is none
}

// Close closes both, the journal last.
func (r *Redis) Close() error {
	err := r.Store.Close()
	if r.journal != nil {
		err = errors.Join(err, r.journal.Close())
	}
	return err
}

// RedisConfig returns the settings of the store, without a journal. It routes the log of
// the Redis client to log.
func RedisConfig(cfg *config.Config, r *config.Redis, keys *keyfile.Ring, log *slog.Logger, now func() time.Time) (rc redis.Config, err error) {
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

func openRedis(ctx context.Context, cfg *config.Config, r *config.Redis, keys *keyfile.Ring, p *Params) (Store, error) {
	rc, err := RedisConfig(cfg, r, keys, p.Log, p.Now)
	if err != nil {
		return nil, err
	}
	rc.Replayer = p.Replayer
	if r.Journal.Enabled {
		rc.Journal, err = openJournal(ctx, journal.Config{
			Path: cfg.JournalFile(), Window: r.Journal.Window, MaxEntries: r.Journal.Entries, Log: p.Log,
		}.WithClock(p.Now))
		if err != nil {
			return nil, err
		}
	}
	rc.AwaitServers = true
	opened, err := redis.Open(ctx, rc)
	if err == nil {
		err = registerRedis(p.Registry, opened)
		if err == nil && rc.Journal != nil {
			err = registerJournal(p.Registry, opened)
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
	return &Redis{opened, rc.Journal}, nil
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
