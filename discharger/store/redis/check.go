package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// The oldest server that is accepted: the oldest line in which faults of the
// Lua interpreter are still mended, and the first to have HRANDFIELD.
const (
	leastMajor = 6
	leastMinor = 2
)

// clockTolerance is how far apart clocks may be without anyone being told.
const clockTolerance = 10 * time.Second

// checkServers refuses servers that cannot do what the store relies on. In a
// cluster every primary is asked.
func (r *Store) checkServers(ctx context.Context) error {
	return r.unguarded().primaries(ctx, func(ctx context.Context, node *redis.Client) error {
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
	info := parseInfo(text)
	if forbidden {
		r.warn(ctx, node, "version")
	} else if err := checkVersion(info["redis_version"]); err != nil {
		return err
	}
	if info["redis_mode"] == "cluster" && !r.cfg.Cluster {
		return errors.New("the server is part of a cluster, but is configured as a single one")
	}
	if err := r.checkClock(ctx, node); err != nil {
		return err
	}
	if err := r.checkEviction(ctx, node, info["maxmemory_policy"]); err != nil {
		return err
	}
	return r.checkDurability(ctx, node)
}

// checkClock warns of a server whose clock is not ours: it is by that clock
// that Redis forgets, and what must be remembered for minutes, such as that a
// session was ended before it began, has only as much to spare.
func (r *Store) checkClock(ctx context.Context, node *redis.Client) error {
	asked := r.cfg.Now()
	theirs, err := node.Time(ctx).Result()
	if err != nil {
		return err
	}
	// It was read some time in between, however long that took.
	var off time.Duration
	if heard := r.cfg.Now(); theirs.After(heard) {
		off = theirs.Sub(heard)
	} else if theirs.Before(asked) {
		off = theirs.Sub(asked)
	}
	if off.Abs() > clockTolerance {
		r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the clock of the redis server is wrong, or ours is",
			slog.Duration("ahead", off.Truncate(time.Second)), slog.String("address", node.Options().Addr))
	}
	return nil
}

// checkEviction refuses a server that throws keys away when its memory is
// full. A lost session is a user logged out; a lost revocation is a session
// come back to life.
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
	return checkPolicy(policy)
}

// checkDurability tries what every revocation will have to wait for.
func (r *Store) checkDurability(ctx context.Context, node *redis.Client) error {
	if r.cfg.Durability == DurabilityPrimary {
		return nil
	}
	b := r.barrier(ctx)
	_ = node.Process(ctx, b.command())
	err := b.passed()
	if err == nil {
		return nil
	}
	if r.cfg.Durability == DurabilityDisk {
		return fmt.Errorf("the server cannot give durability disk, which needs Redis 7.2 and appendonly yes: %w", err)
	}
	return fmt.Errorf("the server cannot give durability replica: %w", err)
}

func (r *Store) warn(ctx context.Context, node *redis.Client, what string) {
	r.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the redis user may not see a setting that could not be checked",
		slog.String("setting", what), slog.String("address", node.Options().Addr))
}

func checkVersion(v string) error {
	majorText, rest, _ := strings.Cut(v, ".")
	minorText, _, _ := strings.Cut(rest, ".")
	major, err1 := strconv.Atoi(majorText)
	minor, err2 := strconv.Atoi(minorText)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("the server's version %.30q is not understood", v)
	}
	if major < leastMajor || major == leastMajor && minor < leastMinor {
		return fmt.Errorf("the server's version is %d.%d, at least %d.%d is needed", major, minor, leastMajor, leastMinor)
	}
	return nil
}

// parseInfo reads what INFO says. What it does not understand is left out.
func parseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.SplitSeq(text, "\n") {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), ":"); ok {
			info[name] = value
		}
	}
	return info
}
