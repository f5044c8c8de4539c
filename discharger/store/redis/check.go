package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store/redis/conn"
)

// The oldest accepted version: the oldest line with fixes of the Lua
// interpreter, and the first with HRANDFIELD.
const (
	leastMajor = 6
	leastMinor = 2
)

// clockTolerance is the difference of clocks above which a warning is logged.
const clockTolerance = 10 * time.Second

// checkServers returns an error if a primary is unsuitable for the store.
func (r *Store) checkServers(ctx context.Context) error {
	return r.unfenced().Primaries(ctx, func(ctx context.Context, node *redis.Client) error {
		if err := r.checkServer(ctx, node); err != nil {
			return fmt.Errorf("%s: %w", node.Options().Addr, err)
		}
		return nil
	})
}

func (r *Store) checkServer(ctx context.Context, node *redis.Client) error {
	text, err := node.Info(ctx).Result()
	forbidden := redis.HasErrorPrefix(err, "NOPERM")
	if err != nil && !forbidden {
		return err
	}
	info := conn.ParseInfo(text)
	if forbidden {
		r.warn(ctx, node, "version")
	} else if err := checkVersion(info["redis_version"]); err != nil {
		return err
	}
	if info["redis_mode"] == "cluster" && !r.cfg.Cluster {
		return errors.New("server is part of a cluster, but configured as a single one")
	}
	if err := r.checkClock(ctx, node); err != nil {
		return err
	}
	if err := r.checkEviction(ctx, node, info["maxmemory_policy"]); err != nil {
		return err
	}
	return r.checkDurability(ctx, node)
}

// checkClock warns if the clock of a server differs. Redis expires keys by its
// clock, and some tombstones have minutes to spare.
func (r *Store) checkClock(ctx context.Context, node *redis.Client) error {
	before := r.cfg.now()
	theirs, err := node.Time(ctx).Result()
	if err != nil {
		return err
	}
	// The server read its clock between both readings here.
	var off time.Duration
	if after := r.cfg.now(); theirs.After(after) {
		off = theirs.Sub(after)
	} else if theirs.Before(before) {
		off = theirs.Sub(before)
	}
	if off.Abs() > clockTolerance {
		r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "clock of redis server differs",
			slog.Duration("ahead", off.Truncate(time.Second)), slog.String("address", node.Options().Addr))
	}
	return nil
}

// checkEviction returns an error for a server that evicts keys when its memory is full. A
// lost session is a user logged out; a lost revocation is a session revived.
func (r *Store) checkEviction(ctx context.Context, node *redis.Client, policy string) error {
	if policy == "" {
		got, err := node.ConfigGet(ctx, "maxmemory-policy").Result()
		if redis.HasErrorPrefix(err, "NOPERM") {
			r.warn(ctx, node, "maxmemory-policy")
			return nil
		}
		if err != nil {
			return err
		}
		policy = got["maxmemory-policy"]
	}
	return conn.CheckPolicy(policy)
}

// checkDurability tries the wait of a revocation.
func (r *Store) checkDurability(ctx context.Context, node *redis.Client) error {
	if r.cfg.Durability == DurabilityPrimary {
		return nil
	}
	b := r.barrier(ctx)
	_ = node.Process(ctx, b.Cmd)
	err := b.passed()
	if b.disk {
		wrap(&err, "server cannot provide durability disk, which needs Redis 7.2 and appendonly yes")
	} else {
		wrap(&err, "server cannot provide durability replica")
	}
	return err
}

func (r *Store) warn(ctx context.Context, node *redis.Client, setting string) {
	r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "redis user may not read a setting, it was not checked",
		slog.String("setting", setting), slog.String("address", node.Options().Addr))
}

func checkVersion(v string) error {
	var major, minor int
	if _, err := fmt.Sscanf(v, "%d.%d", &major, &minor); err != nil {
		return fmt.Errorf("server version %.30q is malformed", v)
	}
	if major < leastMajor || major == leastMajor && minor < leastMinor {
		return fmt.Errorf("server version is %d.%d, want at least %d.%d", major, minor, leastMajor, leastMinor)
	}
	return nil
}
