// Package redis keeps the records of the service in Redis or Valkey, for any number
// of processes. Package [store] describes the promises.
//
// # Unsuitable servers
//
// Open refuses a server that evicts keys when its memory is full, is older than
// 6.2, is a replica, is a node of a cluster when a single server is configured, or
// lacks the configured durability. A setting that the Redis user may not read is
// not checked, and that is logged.
//
// Servers change while a store is open. So role and maxmemory-policy are checked on
// every new connection, before its first command, and on all primaries every two
// seconds. While a primary evicts keys, every method returns an error, which is no
// decision. While the configured durability is not available, revocations are not
// acknowledged. Ready reports both, and tests a write on each primary.
//
// # Commands
//
// The store needs the commands
//
//	eval evalsha get set del time
//	hgetall hmget hset hsetnx hdel hexists hlen hrandfield
//	pttl expireat persist
//	exists xadd xdel xlen xrange xread xinfo|stream
//
// on keys that begin with "ds{", wait or waitaof for durability, select for a
// numbered database, cluster|slots and command for a cluster, and role and info for
// the checks, which a journal cannot do without.
package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/redis/conn"
	"github.com/discharger/discharger/discharger/store/redis/keys"
)

// Config configures a [Store]. Addrs and TagKey are required; the zero value of
// the other fields is the documented default. Reads are never sent to replicas:
// a replica that lags behind shows revoked sessions as live.
type Config struct {
	// Addrs is one host:port or one absolute path of a unix socket. With
	// MasterName it lists Sentinels, with Cluster some of the nodes.
	Addrs      []string
	MasterName string // name of the primary, with Sentinels
	Cluster    bool
	DB         int // not with Cluster

	conn.Access // until [Redis.SetAccess] replaces it

	// TagKey is 32 bytes from which key names are derived, so that they do not
	// reveal users. All processes that share the data need the same one, for
	// ever: with another key the data is not found, which counts as its loss.
	TagKey secret.Bytes

	// Marker keeps the identity of the store elsewhere; nil: a loss while this
	// process is not running is not detected.
	Marker marker.Marker

	Durability Durability // of revocations; empty: DurabilityPrimary
	Replicas   int        // for Durability; 0: see there

	DialTimeout  time.Duration // 0: 500 ms
	ReadTimeout  time.Duration // 0: 500 ms
	WriteTimeout time.Duration // 0: 500 ms
	PoolSize     int           // connections to each node for commands sent alone; 0: 32

	Unpipelined bool // sends every command alone; false: concurrent callers share pipelines

	// Journal keeps the revocations of this process, and those of other processes with a
	// journal. Nil: revocations lost in a failover are not replayed. The caller closes it
	// after the store. The Redis user must be allowed INFO and ROLE.
	Journal  *journal.Journal
	Replayer store.Replayer // of the journal; required with one

	// AwaitServers opens the store while its servers are unusable. Until they
	// are usable every method returns an error, and Ready reports the problem.
	AwaitServers bool

	// SessionLife bounds the age of a session. While a store is younger, or a
	// loss was accepted more recently, Open logs a warning. 0: always.
	SessionLife time.Duration

	CacheHomeserver time.Duration // how long a homeserver's record is cached; 0: one second, the most
	MaxEvents       int           // in a homeserver's feed, above which the oldest are dropped; 0: 1 000 000, of about 150 bytes each
	Log             *slog.Logger  // nil: nothing is logged

	access *atomic.Pointer[conn.Access] // current
	now    func() time.Time
	wait   func(context.Context, time.Duration) error
}

// Store is a store in Redis or Valkey: one server, one watched by Sentinel, or a cluster.
type Store struct {
	cfg     Config
	client  *conn.Client
	conns   *conn.Conns  // of client
	waiting *conn.Client // of feeds and the stream
	fence   *fence       // nil: no journal
	stream  *stream      // nil: no journal
	layout  *keys.Layout
	cache   homeserverCache

	pending pending // state of a store that waits for its servers

	background context.Context // of the tasks
	stop       context.CancelFunc
	tasks      sync.WaitGroup // goroutines, which end with background

	id    atomic.Pointer[string]             // the store's identity
	lost  atomic.Bool                        // data of that identity is missing
	older atomic.Pointer[[keys.Buckets]bool] // hash tags whose data is older than the journal covers; nil: none

	parent *Store // the store whose fence has this one as its second; nil: none

	beats beats
	watch watcher

	recheckMu sync.Mutex
	recheckAt time.Time // when a lost store is checked again
}

// Format writes no secret, for every verb.
func (*Store) Format(s fmt.State, _ rune) { io.WriteString(s, "redis store") }

var (
	_ store.Store = (*Store)(nil)
	_ store.Feed  = (*Store)(nil)
)

// Open connects and checks the servers: see the package comment for the
// refused. With data of another identity than the marker names, the store opens
// and returns ErrLost until [Store.AcceptLoss] is called. Unusable servers are
// an error, unless AwaitServers is set.
func Open(ctx context.Context, cfg Config) (_ *Store, err error) {
	defer wrap(&err, "open redis store")
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	expected, err := marker.Remembered(cfg.Marker)
	if err != nil {
		return nil, err
	}
	r := newStore(cfg, keys.New(cfg.TagKey), nil)
	err = errors.Join(r.prepareFence(), r.connect())
	switch {
	case err != nil:
	case cfg.AwaitServers:
		r.awaitServers(ctx, expected)
	default:
		err = r.open(ctx, expected)
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func newStore(cfg Config, layout *keys.Layout, parent *Store) *Store {
	r := &Store{cfg: cfg, layout: layout, parent: parent}
	r.background, r.stop = context.WithCancel(context.Background())
	return r
}

// prepareFence creates the fence of a store with a journal, and its second store.
func (r *Store) prepareFence() error {
	if r.cfg.Journal == nil {
		return nil
	}
	cfg := r.cfg
	cfg.Journal = nil
	second := newStore(cfg, r.layout, r)
	r.fence = &fence{journal: r.cfg.Journal, store: second, wake: make(chan struct{}, 1)}
	r.fence.raised.Store(true)
	var err error
	if r.stream, err = newStream(r); err != nil {
		return err
	}
	return second.connect()
}

// connect creates the clients. With a journal, no connection is allowed before
// the journal is replayed.
func (r *Store) connect() (err error) {
	if r.client, r.conns, err = r.newClient(r.cfg.PoolSize, r.cfg.Unpipelined); err != nil {
		return err
	}
	// Each followed homeserver takes a connection of this client.
	r.waiting, _, err = r.newClient(1024, true)
	return err
}

// newClient returns a client whose connections the fence allows.
func (r *Store) newClient(poolSize int, unpipelined bool) (*conn.Client, *conn.Conns, error) {
	conns := &conn.Conns{Refused: r.refuse}
	if r.fence != nil {
		conns.Allow = r.fence.allow
		r.fence.drop = append(r.fence.drop, conns)
	}
	cfg := &r.cfg
	client, err := conn.NewClient(conn.Config{
		Addrs: cfg.Addrs, MasterName: cfg.MasterName, Cluster: cfg.Cluster, DB: cfg.DB,
		DialTimeout: cfg.DialTimeout, ReadTimeout: cfg.ReadTimeout, WriteTimeout: cfg.WriteTimeout,
		PoolSize: poolSize, Unpipelined: unpipelined, Access: cfg.access,
	}, conns)
	return client, conns, err
}

// SetAccess replaces passwords, certificates and authorities. Later connections use
// the new ones. Existing connections stay open, which servers allow after a change
// of passwords; commands on those that a server closes are repeated.
func (r *Store) SetAccess(a conn.Access) { r.cfg.access.Store(&a) }

func (r *Store) open(ctx context.Context, expected string) error {
	if err := r.checkServers(ctx); err != nil {
		return err
	}
	r.watch.refused.Store(nil) // of an earlier try
	if err := r.identify(ctx, expected); err != nil {
		return err
	}
	losses, err := r.Losses(ctx)
	if err != nil {
		return err
	}
	now, err := r.serverTime(ctx)
	if err != nil {
		return err
	}
	if r.fence != nil {
		if err := r.fence.start(ctx, r); err != nil {
			return err
		}
	}
	r.warnOfLosses(ctx, losses, now)
	r.tasks.Go(func() { r.watchServers(r.background) })
	return nil
}

// unfenced returns the client that works while the store is fenced.
func (r *Store) unfenced() *conn.Client {
	if r.fence != nil {
		return r.fence.store.client
	}
	return r.client
}

// WithClock returns the configuration with another clock than time.Now.
func (cfg Config) WithClock(now func() time.Time) Config {
	cfg.now = now
	return cfg
}

// complete checks the configuration and sets defaults.
func (cfg *Config) complete() error {
	switch {
	case len(cfg.Addrs) == 0:
		return errors.New("addresses are empty")
	case cfg.MasterName != "" && cfg.Cluster:
		return errors.New("a cluster has no sentinels")
	case cfg.Cluster && cfg.DB != 0:
		return errors.New("a cluster has no numbered databases")
	case cfg.Journal != nil && cfg.Replayer == nil:
		return errors.New("a journal needs a replayer")
	case len(cfg.Addrs) > 1 && cfg.MasterName == "" && !cfg.Cluster:
		return errors.New("several addresses need a master name or cluster")
	case len(cfg.TagKey) != keys.TagKeyLen:
		return fmt.Errorf("tag key has %d bytes, want %d", len(cfg.TagKey), keys.TagKeyLen)
	case min(cfg.DialTimeout, cfg.ReadTimeout, cfg.WriteTimeout) < 0:
		return errors.New("a timeout is negative")
	case cfg.CacheHomeserver < 0 || cfg.CacheHomeserver > longestCache:
		return fmt.Errorf("records of homeservers may be cached up to %v, not %v", longestCache, cfg.CacheHomeserver)
	case cfg.PoolSize < 0 || cfg.Replicas < 0 || cfg.DB < 0 || cfg.MaxEvents < 0:
		return errors.New("a number is negative")
	}
	if err := cfg.completeDurability(); err != nil {
		return err
	}
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, 500*time.Millisecond)
	cfg.ReadTimeout = cmp.Or(cfg.ReadTimeout, 500*time.Millisecond)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 500*time.Millisecond)
	cfg.CacheHomeserver = cmp.Or(cfg.CacheHomeserver, longestCache)
	cfg.PoolSize = cmp.Or(cfg.PoolSize, 32)
	cfg.MaxEvents = cmp.Or(cfg.MaxEvents, limits.DefaultMaxEvents)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	cfg.access = new(atomic.Pointer[conn.Access])
	access := cfg.Access
	cfg.access.Store(&access)
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.wait == nil {
		cfg.wait = wait
	}
	return nil
}

// wrap adds the operation to an error.
func wrap(err *error, op string) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", op, *err)
	}
}

// newBackOff returns the pauses between retries: at first initial, at most a second.
func newBackOff(initial time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = initial, time.Second
	return b
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close closes all connections.
func (r *Store) Close() error {
	r.stop()
	r.tasks.Wait()
	var errs []error
	if r.fence != nil {
		errs = append(errs, r.fence.store.Close())
	}
	for _, c := range []*conn.Client{r.client, r.waiting} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// clock returns the time that scripts compare with an expiry, Unix seconds.
func (r *Store) clock() int64 {
	return min(max(r.cfg.now().Unix(), 0), math.MaxUint32)
}
