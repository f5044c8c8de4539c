package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Durability is what a revocation must have survived before it is
// acknowledged.
type Durability string

// Durabilities, the weakest first. None makes Redis lose nothing at all: a
// failover to a replica that lags behind undoes what others have confirmed.
const (
	DurabilityPrimary Durability = "primary" // the primary has it in memory
	DurabilityReplica Durability = "replica" // Replicas replicas, at least one, have it in memory too
	DurabilityDisk    Durability = "disk"    // it is on the disk of the primary and of Replicas replicas, or none; Redis 7.2
)

func (cfg *Config) completeDurability() error {
	switch cfg.Durability {
	case "", DurabilityPrimary:
		cfg.Durability = DurabilityPrimary
		if cfg.Replicas != 0 {
			return errors.New("durability primary asks no replicas")
		}
	case DurabilityReplica:
		cfg.Replicas = max(cfg.Replicas, 1)
	case DurabilityDisk:
	default:
		return fmt.Errorf("durability %q is not one of primary, replica, disk", cfg.Durability)
	}
	return nil
}

// barrier waits on a connection until what was written there before is durable.
type barrier struct {
	replicas int
	memory   *redis.IntCmd      // WAIT
	disk     *redis.IntSliceCmd // WAITAOF
}

// barrier lets the server wait no longer than its answer may take.
func (r *Store) barrier(ctx context.Context) barrier {
	b, d := barrier{replicas: r.cfg.Replicas}, max(r.cfg.ReadTimeout*3/4, time.Millisecond)
	if r.cfg.Durability == DurabilityDisk {
		b.disk = redis.NewIntSliceCmd(ctx, "waitaof", 1, b.replicas, d.Milliseconds())
	} else {
		b.memory = redis.NewIntCmd(ctx, "wait", b.replicas, d.Milliseconds())
	}
	return b
}

func (b barrier) command() redis.Cmder {
	if b.disk != nil {
		return b.disk
	}
	return b.memory
}

// notDurableError says who has not confirmed a write that has taken effect.
type notDurableError struct {
	disk, local   bool // local: not even the primary, which only disk asks
	got, replicas int64
}

func (e *notDurableError) Error() string {
	where := "in memory"
	if e.disk {
		where = "on disk"
	}
	if e.local {
		return "the primary has not confirmed that the write is on disk"
	}
	return fmt.Sprintf("%d of %d replicas have confirmed that the write is %s", e.got, e.replicas, where)
}

// passed returns nil if as many have it as must.
func (b barrier) passed() error {
	want := int64(b.replicas)
	if b.disk == nil {
		n, err := b.memory.Result()
		if err == nil && n < want {
			err = &notDurableError{got: n, replicas: want}
		}
		return err
	}
	got, err := b.disk.Result()
	switch {
	case err != nil:
		return err
	case len(got) != 2:
		return fmt.Errorf("redis answered with %d values instead of 2", len(got))
	case got[0] < 1 || got[1] < want:
		return &notDurableError{disk: true, local: got[0] < 1, got: got[1], replicas: want}
	}
	return nil
}

// runDurably calls a script and has the server wait until its effect, or that
// of an earlier call which found the same, is durable. Both commands travel
// together on one connection, since waiting means waiting for what that
// connection wrote; the scripts always write something. If the connection
// breaks, both are sent again.
func (r *Store) runDurably(ctx context.Context, c call) (int64, error) {
	full := false
	var last error
	for range 3 {
		answer, wait, err := r.sendDurably(ctx, c, full)
		if err != nil {
			return 0, err
		}
		last = answer.Err()
		switch {
		case redis.HasErrorPrefix(last, "NOSCRIPT"):
			full = true
			continue
		case redis.HasErrorPrefix(last, "MOVED"):
			r.client.moved(ctx)
			continue
		case last == nil:
			last = wait.passed()
		}
		if last == nil {
			return answer.Int64()
		}
		var unmet *notDurableError
		var reply redis.Error
		if errors.As(last, &unmet) || errors.As(last, &reply) {
			break // the server has spoken
		}
	}
	return 0, last
}

func (r *Store) sendDurably(ctx context.Context, c call, full bool) (*redis.Cmd, barrier, error) {
	node, err := r.client.primaryOf(ctx, c.key)
	if err != nil {
		return nil, barrier{}, err
	}
	answer, wait := c.command(ctx, full), r.barrier(ctx)
	return answer, wait, await(ctx, func() {
		conn := node.Conn()
		defer conn.Close()
		pipe := conn.Pipeline()
		_ = pipe.Process(ctx, answer)
		_ = pipe.Process(ctx, wait.command())
		_, _ = pipe.Exec(ctx)
	})
}
