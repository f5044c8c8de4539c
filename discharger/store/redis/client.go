package redis

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// client sends commands. go-redis can gather those of concurrent callers into
// pipelines, which is experimental there and known to nothing but this file.
//
// It cuts the work per command to a third when there are many callers, but
// makes a lone caller wait for others who do not come. So the first few
// callers each get a connection of their own, and only those who come while
// they are waiting for their answers share one. BenchmarkRedisLoad compares.
type client struct {
	redis.UniversalClient
	piped    *redis.AutoPipeliner // nil: every command is sent alone
	inFlight atomic.Int64
}

// alone is how many commands may be under way before others are gathered.
const alone = 8

// newClient makes the one client that the store uses.
func newClient(cfg Config, l *links) (*client, error) {
	opt := &redis.UniversalOptions{
		Addrs:         cfg.Addrs,
		MasterName:    cfg.MasterName,
		IsClusterMode: cfg.Cluster,
		DB:            cfg.DB,
		Protocol:      2, // nothing here needs 3

		CredentialsProviderContext: cfg.credentials, // those of Sentinels are given in greet, and TLS is in dial

		ContextTimeoutEnabled: true,
		DialTimeout:           cfg.DialTimeout,
		ReadTimeout:           cfg.ReadTimeout,
		WriteTimeout:          cfg.WriteTimeout,
		PoolTimeout:           cfg.ReadTimeout,
		PoolSize:              cfg.PoolSize,
		DialerRetries:         1, // a request that cannot wait is told so
		MaxRetries:            2, // every command may be repeated
		MaxRetryBackoff:       100 * time.Millisecond,

		Dialer:    l.dial,
		OnConnect: l.greet,

		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	c := &client{UniversalClient: redis.NewUniversalClient(opt)}
	l.trouble = c.moved // or a cluster's client goes on asking the dead for a minute
	if cfg.Unpipelined {
		return c, nil
	}
	piped, err := c.AsyncAutoPipelineWithOptions(&redis.AutoPipelineOptions{
		MaxBatchSize:         200,
		MaxConcurrentBatches: 1,
		MaxQueuedCommands:    10_000, // beyond that, callers are turned away
	})
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.piped = piped
	return c, nil
}

// requirePrimary refuses a connection to a replica. Someone who may not ask
// is believed.
func requirePrimary(ctx context.Context, cn *redis.Conn) error {
	cmd := redis.NewSliceCmd(ctx, "role")
	err := cn.Process(ctx, cmd)
	if err != nil {
		if redis.HasErrorPrefix(err, "NOPERM") {
			return nil
		}
		return err
	}
	return checkRole(cmd.Val())
}

// checkRole judges the answer to ROLE. Sentinels are asked too, on the way to
// the primary.
func checkRole(answer []any) error {
	role := "of no role"
	if len(answer) > 0 {
		role = fmt.Sprintf("%.20v", answer[0])
	}
	if role != "master" && role != "sentinel" {
		return fmt.Errorf("the server is not a primary but %q; only a primary has all revocations", role)
	}
	return nil
}

// do sends commands in one round trip and waits for the answers, but not
// longer than ctx allows. Each command then holds its own result or error. An
// error from do means that the commands are still under way: they must not be
// looked at, and their effect is open.
func (c *client) do(ctx context.Context, cmds ...redis.Cmder) error {
	if c.inFlight.Add(1) <= alone || c.piped == nil {
		return await(ctx, func() {
			defer c.inFlight.Add(-1)
			c.send(ctx, cmds)
		})
	}
	defer c.inFlight.Add(-1)
	futures := make([]redis.AutoFuture, len(cmds))
	for i, cmd := range cmds {
		futures[i] = c.piped.Submit(ctx, cmd)
	}
	for _, f := range futures {
		if err := f.WaitContext(ctx); err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// send sends commands on a connection of their own. Results and errors are in
// the commands.
func (c *client) send(ctx context.Context, cmds []redis.Cmder) {
	if len(cmds) == 1 {
		_ = c.Process(ctx, cmds[0])
		return
	}
	pipe := c.Pipeline()
	for _, cmd := range cmds {
		_ = pipe.Process(ctx, cmd)
	}
	_, _ = pipe.Exec(ctx)
}

// await runs f and waits for it or for the end of ctx. The client itself keeps
// to deadlines, so a context that has one needs no goroutine, which would
// double the work of a lone command; if it is cancelled before, f ends with
// its answer or ReadTimeout.
func await(ctx context.Context, f func()) error {
	if _, ok := ctx.Deadline(); ok || ctx.Done() == nil {
		f()
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// primaries calls f for the primary, or for each of a cluster's.
func (c *client) primaries(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	if cluster, ok := c.UniversalClient.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, f)
	}
	return f(ctx, c.UniversalClient.(*redis.Client))
}

// primaryOf returns a client of the primary that has a key.
func (c *client) primaryOf(ctx context.Context, key string) (*redis.Client, error) {
	if cluster, ok := c.UniversalClient.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return c.UniversalClient.(*redis.Client), nil
}

// moved makes a cluster's client look again where its slots are.
func (c *client) moved(ctx context.Context) {
	if cluster, ok := c.UniversalClient.(*redis.ClusterClient); ok {
		cluster.ReloadState(ctx)
	}
}
