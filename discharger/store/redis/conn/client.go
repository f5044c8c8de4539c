// Package conn connects to Redis. Its clients send commands to primaries only, of
// one server, of one watched by Sentinel, or of a cluster.
//
// Each new connection is checked before the first command: the server must be a
// primary that evicts no keys, and [Conns.Allow] can refuse it. A primary can be
// replaced while pools of go-redis hold connections to its predecessor. So
// [Conns.Drop] makes every connection unusable that was opened before.
//
// Commands of many concurrent callers share pipelines, which cuts the work per
// command to a third. A lone caller would only wait for others, so the first few
// have a connection each.
package conn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/discharger/discharger/discharger/secret"
)

// Config configures a [Client].
type Config struct {
	Addrs      []string // as in go-redis: a server, Sentinels or nodes of a cluster
	MasterName string   // of the primary, with Sentinels
	Cluster    bool
	DB         int

	DialTimeout, ReadTimeout, WriteTimeout time.Duration

	PoolSize    int  // connections to each node
	Unpipelined bool // every command is sent alone

	Access *atomic.Pointer[Access] // the current credentials
}

// Client sends commands.
type Client struct {
	redis.UniversalClient
	piped    *redis.AutoPipeliner // nil: every command is sent alone
	inFlight atomic.Int64
}

// alone is the number of calls in flight from which on commands share pipelines.
const alone = 8

// NewClient returns a client that opens its connections through c.
func NewClient(cfg Config, c *Conns) (*Client, error) {
	c.cfg = &cfg
	client := &Client{UniversalClient: redis.NewUniversalClient(&redis.UniversalOptions{
		Addrs:         cfg.Addrs,
		MasterName:    cfg.MasterName,
		IsClusterMode: cfg.Cluster,
		DB:            cfg.DB,
		Protocol:      2,

		CredentialsProviderContext: func(context.Context) (username, password string, err error) {
			a := cfg.Access.Load()
			return a.Username, string(a.Password), nil // of Sentinels: onConnect; TLS: dial
		},

		ContextTimeoutEnabled: true,
		DialTimeout:           cfg.DialTimeout,
		ReadTimeout:           cfg.ReadTimeout,
		WriteTimeout:          cfg.WriteTimeout,
		PoolTimeout:           cfg.ReadTimeout,
		PoolSize:              cfg.PoolSize,
		DialerRetries:         1,
		MaxRetries:            2, // every command can be repeated
		MaxRetryBackoff:       100 * time.Millisecond,

		Dialer:    c.dial,
		OnConnect: c.onConnect,

		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})}
	c.failed = client.ReloadSlots // without it, a cluster's client uses a dead node for a minute
	if cfg.Unpipelined {
		return client, nil
	}
	piped, err := client.AsyncAutoPipelineWithOptions(&redis.AutoPipelineOptions{
		MaxBatchSize:         200,
		MaxConcurrentBatches: 1,
		MaxQueuedCommands:    10_000, // later ones fail
	})
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	client.piped = piped
	return client, nil
}

// Do sends commands in one round trip and waits for the replies, at most until ctx
// ends. Each command then holds its own result or error. After an error of Do the
// commands are still in flight: they must not be read, and their effect is unknown.
func (c *Client) Do(ctx context.Context, cmds ...redis.Cmder) error {
	if c.inFlight.Add(1) <= alone || c.piped == nil {
		return Await(ctx, func() {
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

// send sends commands on one connection. The commands hold results and errors.
func (c *Client) send(ctx context.Context, cmds []redis.Cmder) {
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

// Await runs f, and returns when f or ctx ends. With a deadline it starts no
// goroutine, which would double the work of a lone command: the client keeps
// deadlines itself. f then ends with its reply or ReadTimeout if ctx is cancelled.
func Await(ctx context.Context, f func()) error {
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

// Primaries calls f for each primary. With a cluster, the calls are concurrent.
func (c *Client) Primaries(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	if cluster, ok := c.UniversalClient.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, f)
	}
	return f(ctx, c.UniversalClient.(*redis.Client))
}

// PrimaryOf returns a client of the primary that has a key.
func (c *Client) PrimaryOf(ctx context.Context, key string) (*redis.Client, error) {
	if cluster, ok := c.UniversalClient.(*redis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, key)
	}
	return c.UniversalClient.(*redis.Client), nil
}

// ReloadSlots makes the client of a cluster ask again which node has which slots.
func (c *Client) ReloadSlots(ctx context.Context) {
	if cluster, ok := c.UniversalClient.(*redis.ClusterClient); ok {
		cluster.ReloadState(ctx)
	}
}

// Access holds the credentials of a client and its TLS settings. The zero value
// has neither.
type Access struct {
	Username string // an ACL user; empty: the default user
	Password secret.Bytes

	// For Sentinels.
	SentinelUsername string
	SentinelPassword secret.Bytes

	TLS *tls.Config // nil: no TLS
}

// failoverName is the address that go-redis gives to a primary that Sentinels
// watch. A Sentinel has its own.
const failoverName = "Redis<FailoverClient "

// isSentinel reports whether a new connection of a client with a MasterName leads
// to a Sentinel.
func isSentinel(cn *redis.Conn) bool { return !strings.HasPrefix(cn.String(), failoverName) }

// logInToSentinel authenticates a new connection to a Sentinel. go-redis reads the
// credentials for Sentinels only once, from the client's options.
func (a *Access) logInToSentinel(ctx context.Context, cn *redis.Conn) error {
	if len(a.SentinelPassword) == 0 {
		return nil
	}
	args := []any{"auth", string(a.SentinelPassword)}
	if a.SentinelUsername != "" {
		args = []any{"auth", a.SentinelUsername, string(a.SentinelPassword)}
	}
	if err := cn.Process(ctx, redis.NewStatusCmd(ctx, args...)); err != nil {
		return fmt.Errorf("authenticate to sentinel: %w", err)
	}
	return nil
}
