package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/marker"
)

// Config says where a [Redis] is and what it has to guarantee. Addrs and
// TagKey are required; the zero value of the rest is the documented default.
// There is no way to have reads answered by replicas: a replica that lags
// behind shows sessions as they were before they were revoked.
type Config struct {
	// Addrs is one host:port or one absolute path of a unix socket. With
	// MasterName it lists the sentinels, with Cluster some of the nodes.
	Addrs      []string
	MasterName string // what Sentinel calls the primary
	Cluster    bool
	DB         int // not with Cluster

	Access // until [Redis.SetAccess] replaces it

	// TagKey is 32 bytes that key names are derived with, so that they do not
	// tell who has sessions. All processes that share the data need the same
	// one, for ever: with another key the data cannot be found, which is
	// treated as its loss.
	TagKey secret.Bytes

	// Marker remembers the store's identity elsewhere; nil leaves a loss
	// unnoticed that happens while this process is not running.
	Marker marker.Marker

	Durability Durability // of revocations; empty: DurabilityPrimary
	Replicas   int        // that Durability asks for; 0: see there

	DialTimeout  time.Duration // 0: 500 ms
	ReadTimeout  time.Duration // 0: 500 ms
	WriteTimeout time.Duration // 0: 500 ms
	PoolSize     int           // connections to each node for commands sent alone; 0: 32

	// Unpipelined sends every command alone. By default the commands of more
	// than a few concurrent callers travel together.
	Unpipelined bool

	// Journal takes what this process revokes, before it is acknowledged, and
	// what other processes with one tell it that they have revoked; nil leaves
	// undone what a failover undoes. It is the caller's to close, after
	// the store. The Redis user must be allowed INFO and ROLE.
	Journal *journal.Journal

	// Announce writes the event of a revocation that a replay of the journal
	// restores now; nil: as [discharger.Announcer] does whose fields are zero.
	// An error is logged, and the revocation is restored without an event.
	Announce func(e *revocation.Revocation, now time.Time) (store.FeedEvent, error)

	// AwaitServers opens the store also while the servers cannot be used, and
	// waits for them: until then every method returns an error, and Ready's
	// says what is wrong with them.
	AwaitServers bool

	// SessionLife is how long a session can live, by its last use or for other
	// reasons. While a store is younger, or a loss of its data was accepted more
	// recently, OpenRedis logs a warning. 0: always.
	SessionLife time.Duration

	// CacheHomeserver is how long a homeserver's record may be used again
	// without asking; 0 is one second, which is also the most.
	CacheHomeserver time.Duration

	// MaxEvents bounds the events of each homeserver's feed; beyond that, the
	// oldest go before their time. 0: 1 000 000, of about 150 bytes each.
	MaxEvents int

	Log  *slog.Logger                               // of checks that could not be made; nil: nothing is logged
	Now  func() time.Time                           // nil: time.Now
	Wait func(context.Context, time.Duration) error // nil: waits that long, or until the context ends

	access *atomic.Pointer[Access] // the current one
}

// Store is a [store.Store] in Redis or Valkey: one server, one watched
// by Sentinel, or a cluster.
type Store struct {
	cfg     Config
	client  *client
	links   *links    // of client
	waiting *client   // for events
	guard   *guardian // nil: there is no journal
	peers   *peers    // nil: likewise
	layout  *layout
	cache   homeserverCache

	pending pending // of a store that waits for its servers

	id    atomic.Pointer[string]        // the store's identity
	lost  atomic.Bool                   // the data is not, or not all, of that identity
	older atomic.Pointer[[buckets]bool] // where it is older than what was there and the journal covers; nil: nowhere

	of *Store // the store that this is the guardian's second of; nil: none

	beats beats
	watch watcher

	recheckMu sync.Mutex
	recheckAt time.Time // when a lost store may be looked at again
}

var (
	_ store.Store = (*Store)(nil)
	_ store.Feed  = (*Store)(nil)
)

// Open connects, and checks that the servers can hold what the store
// needs them to: see the package comment for what is refused. Data that is not
// what the marker names is not an error here; the store then answers
// [store.ErrLost] until [Redis.AcceptLoss] is called. Servers that
// cannot be used are an error, unless AwaitServers is set.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("open redis store: %w", err)
	}
	expected, err := marker.Remembered(cfg.Marker)
	if err != nil {
		return nil, fmt.Errorf("open redis store: %w", err)
	}
	r := &Store{cfg: cfg, layout: newLayout(cfg.TagKey)}
	if err := errors.Join(r.guarded(), r.connect()); err != nil {
		return nil, errors.Join(fmt.Errorf("open redis store: %w", err), r.Close())
	}
	if cfg.AwaitServers {
		r.awaitServers(ctx, expected)
		return r, nil
	}
	if err := r.open(ctx, expected); err != nil {
		return nil, errors.Join(fmt.Errorf("open redis store: %w", err), r.Close())
	}
	return r, nil
}

// guarded prepares for a journal: a second store, never shut, to replay it to.
func (r *Store) guarded() error {
	if r.cfg.Journal == nil {
		return nil
	}
	cfg := r.cfg
	cfg.Journal = nil
	second := &Store{cfg: cfg, layout: r.layout, of: r}
	r.guard = &guardian{journal: r.cfg.Journal, store: second, alarm: make(chan struct{}, 1)}
	r.guard.shut.Store(true)
	var err error
	if r.peers, err = newPeers(r); err != nil {
		return err
	}
	return second.connect()
}

// connect makes the clients; with a journal, nobody gets a connection until
// it is known that the primaries have what is in it.
func (r *Store) connect() (err error) {
	r.links = &links{cfg: &r.cfg, guard: r.guard, refuse: r.refuse}
	if r.client, err = newClient(r.cfg, r.links); err != nil {
		return err
	}
	waiting := &links{cfg: &r.cfg, guard: r.guard, refuse: r.refuse}
	if r.waiting, err = feedClient(r.cfg, waiting); err != nil {
		return err
	}
	if r.guard != nil {
		r.guard.drop = []*links{r.links, waiting}
	}
	return nil
}

func (r *Store) open(ctx context.Context, expected string) error {
	if err := r.checkServers(ctx); err != nil {
		return err
	}
	r.watch.refused.Store(nil) // by a try before, if there was one
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
	if r.guard != nil {
		if err := r.guard.start(ctx, r); err != nil {
			return err
		}
	}
	r.warnOfLosses(ctx, losses, now)
	r.startWatch()
	return nil
}

// unguarded is the client that works while the store is shut.
func (r *Store) unguarded() *client {
	if r.guard != nil {
		return r.guard.store.client
	}
	return r.client
}

// complete checks what is given and fills in what is not.
func (cfg *Config) complete() error {
	switch {
	case len(cfg.Addrs) == 0:
		return errors.New("no address")
	case cfg.MasterName != "" && cfg.Cluster:
		return errors.New("a cluster has no sentinels")
	case cfg.Cluster && cfg.DB != 0:
		return errors.New("a cluster has no numbered databases")
	case len(cfg.Addrs) > 1 && cfg.MasterName == "" && !cfg.Cluster:
		return errors.New("several addresses: are they sentinels or nodes of a cluster?")
	case len(cfg.TagKey) != tagKeyLen:
		return fmt.Errorf("the tag key has %d bytes, want %d", len(cfg.TagKey), tagKeyLen)
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
	for _, d := range []*time.Duration{&cfg.DialTimeout, &cfg.ReadTimeout, &cfg.WriteTimeout} {
		if *d == 0 {
			*d = 500 * time.Millisecond
		}
	}
	if cfg.CacheHomeserver == 0 {
		cfg.CacheHomeserver = longestCache
	}
	cfg.access = new(atomic.Pointer[Access])
	access := cfg.Access
	cfg.access.Store(&access)
	if cfg.PoolSize == 0 {
		cfg.PoolSize = 32
	}
	if cfg.MaxEvents == 0 {
		cfg.MaxEvents = limits.DefaultMaxEvents
	}
	if cfg.Announce == nil {
		cfg.Announce = discharger.Announcer{}.Event
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Wait == nil {
		cfg.Wait = wait
	}
	return nil
}

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
	var errs []error
	r.pending.close()
	r.stopWatch()
	if r.guard != nil {
		r.guard.close()
		errs = append(errs, r.guard.store.Close())
	}
	for _, c := range []*client{r.client, r.waiting} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// clock is the time as scripts compare it with an expiry.
func (r *Store) clock() int64 {
	return min(max(r.cfg.Now().Unix(), 0), math.MaxUint32)
}
