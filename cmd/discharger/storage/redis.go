package storage

import (
	"context"
	"log/slog"
	"time"

	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redis/conn"
)

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
