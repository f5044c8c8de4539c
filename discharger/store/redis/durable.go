package redis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/store/redis/conn"
)

// Durability is the level that a revocation must reach before it is acknowledged.
type Durability string

// Durabilities, the weakest first. None excludes all loss: a failover to a
// replica that lags behind undoes writes that other replicas confirmed.
const (
	DurabilityPrimary Durability = "primary" // in the memory of the primary
	DurabilityReplica Durability = "replica" // and in the memory of Replicas replicas, at least one
	DurabilityDisk    Durability = "disk"    // on the disk of the primary and of Replicas replicas, 0 or more; Redis 7.2
)

func (cfg *Config) completeDurability() error {
	switch cfg.Durability {
	case "", DurabilityPrimary:
		cfg.Durability = DurabilityPrimary
		if cfg.Replicas != 0 {
			return errors.New("durability primary has no replicas")
		}
	case DurabilityReplica:
		cfg.Replicas = max(cfg.Replicas, 1)
	case DurabilityDisk:
	default:
		return fmt.Errorf("durability %q is not one of primary, replica, disk", cfg.Durability)
	}
	return nil
}

// barrier is a wait for the durability of the writes of one connection.
type barrier struct {
	*redis.Cmd // WAIT or WAITAOF
	disk       bool
	replicas   int64
}

// barrier returns a wait that ends before ReadTimeout.
func (r *Store) barrier(ctx context.Context) barrier {
	b := barrier{disk: r.cfg.Durability == DurabilityDisk, replicas: int64(r.cfg.Replicas)}
	d := max(r.cfg.ReadTimeout*3/4, time.Millisecond)
	if b.disk {
		b.Cmd = redis.NewCmd(ctx, "waitaof", 1, b.replicas, d.Milliseconds())
	} else {
		b.Cmd = redis.NewCmd(ctx, "wait", b.replicas, d.Milliseconds())
	}
	return b
}

// notDurableError is the error of a write that took effect and was not
// confirmed as durable. It names the missing confirmations.
type notDurableError string

// Error implements error.
func (e notDurableError) Error() string { return string(e) }

// passed returns an error unless enough servers confirmed.
func (b barrier) passed() (err error) {
	got, where := []int64{1, 0}, "in memory" // of the primary, and of replicas
	if b.disk {
		where = "on disk"
		got, err = b.Int64Slice()
	} else {
		got[1], err = b.Int64()
	}
	switch {
	case err != nil:
		return err
	case len(got) != 2:
		return fmt.Errorf("redis answered with %d values instead of 2", len(got))
	case got[0] < 1:
		return notDurableError("the primary has not confirmed that the write is on disk")
	case got[1] < b.replicas:
		return notDurableError(fmt.Sprintf("%d of %d replicas have confirmed that the write is %s", got[1], b.replicas, where))
	}
	return nil
}

// runDurably calls a script and waits until its effect is durable, or the same
// effect of an earlier call. Both commands use one connection, since WAIT
// covers the writes of its connection; the scripts always write something. If
// the connection breaks, both are sent again.
func (r *Store) runDurably(ctx context.Context, c call) (*redis.Cmd, error) {
	full := false
	var last error
	for range 3 {
		answer, wait, err := r.sendDurably(ctx, c, full)
		if err != nil {
			return nil, err
		}
		last = answer.Err()
		switch {
		case redis.HasErrorPrefix(last, "NOSCRIPT"):
			full = true
			continue
		case redis.HasErrorPrefix(last, "MOVED"):
			r.client.ReloadSlots(ctx)
			continue
		case last == nil:
			last = wait.passed()
		}
		if last == nil {
			return answer, nil
		}
		var unmet notDurableError
		var reply redis.Error
		if errors.As(last, &unmet) || errors.As(last, &reply) {
			break // a reply is final
		}
	}
	return nil, last
}

func (r *Store) sendDurably(ctx context.Context, c call, full bool) (*redis.Cmd, barrier, error) {
	node, err := r.client.PrimaryOf(ctx, c.key)
	if err != nil {
		return nil, barrier{}, err
	}
	answer, wait := c.command(ctx, full), r.barrier(ctx)
	return answer, wait, conn.Await(ctx, func() {
		conn := node.Conn()
		defer conn.Close()
		pipe := conn.Pipeline()
		_ = pipe.Process(ctx, answer)
		_ = pipe.Process(ctx, wait.Cmd)
		_, _ = pipe.Exec(ctx)
	})
}
