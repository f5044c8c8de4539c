// Package cache provides the one bounded cache: values that can be computed again,
// with a bound in bytes.
//
// The bound of a [Cache] is the memory of keys, values and their overhead. A cache has
// a young and an old half. Entries are put into the young half. When it is full it
// becomes the old half, and the entries of the previous old half are evicted. A look-up
// that finds an entry in the old half moves it to the young one. So an entry in use
// stays, and a look-up takes a read lock and one access to a map. The halves also change
// after some time, so that unused entries are evicted.
//
// An entry can be evicted at any moment, also right after it was put. So a cache holds
// results that save work, and nothing that decides an answer.
//
// Entries may belong to groups, such as the tokens that the holder of one session made
// of it. A group has a bounded number of entries; further ones are not kept until some
// of them are evicted.
//
// Several caches can share the memory of a [Budget].
package cache

import (
	"errors"
	"hash/maphash"
	"sync"
	"time"
)

// Overhead is the approximate size of an entry in bytes, beside Config.Size.
const Overhead = 128

// Config configures a [Cache]. Bytes is required.
type Config[K comparable, V any] struct {
	// Bytes bounds the memory of all entries.
	Bytes int
	// Size returns the size in bytes of a key and a value, with all memory that only
	// they refer to. It is called when the entry is put. Nil: 0, for small entries.
	Size func(K, V) int
	// Idle is how long an unused entry is kept at least, if there is room; it is
	// evicted before twice that time. Time passes while entries are put. 0: as long
	// as there is room.
	Idle time.Duration
	// Group returns the group of an entry, and whether it has one; the same for every
	// call. Nil: no entry has a group.
	Group func(K, V) (group [16]byte, ok bool)
	// PerGroup is the greatest number of entries of a group.
	PerGroup int
	// Hash returns some bits of a key that differ among keys. Nil: a hash of the
	// whole key, which is slow for long keys.
	Hash func(K) uint64

	now func() time.Time // set by WithClock; nil: time.Now
}

// WithClock returns a copy of the configuration in which now returns the time. It is
// for simulations.
func (c Config[K, V]) WithClock(now func() time.Time) Config[K, V] {
	c.now = now
	return c
}

// Cache keeps values by their keys. A nil Cache is empty. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	cfg    Config[K, V]
	half   int // bytes of each half of a shard
	mask   uint64
	shards []shard[K, V]
	groups groups
}

type shard[K comparable, V any] struct {
	mu         sync.RWMutex
	young, old map[K]entry[V]
	bytes      [2]int // of the young half, of the old one
	turned     time.Time
}

type entry[V any] struct {
	value V
	size  int
}

// The number of shards is a power of two, and lower for small caches.
const (
	maxShards = 16
	minShard  = 256 << 10
)

// New returns a cache.
func New[K comparable, V any](cfg Config[K, V]) (*Cache[K, V], error) {
	if cfg.Bytes <= 0 {
		return nil, errors.New("new cache: Bytes is not positive")
	}
	if cfg.Group != nil && cfg.PerGroup <= 0 {
		return nil, errors.New("new cache: PerGroup is not positive")
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.Hash == nil {
		seed := maphash.MakeSeed()
		cfg.Hash = func(k K) uint64 { return maphash.Comparable(seed, k) }
	}
	n := maxShards
	for n > 1 && cfg.Bytes/n < minShard {
		n /= 2
	}
	c := &Cache[K, V]{
		cfg: cfg, half: cfg.Bytes / (2 * n), mask: uint64(n - 1), shards: make([]shard[K, V], n),
		groups: groups{limit: cfg.PerGroup, entries: make(map[[16]byte]int)},
	}
	now := cfg.now()
	for i := range c.shards {
		c.shards[i].young, c.shards[i].turned = make(map[K]entry[V]), now
	}
	return c, nil
}

func (c *Cache[K, V]) shard(key K) *shard[K, V] { return &c.shards[c.cfg.Hash(key)&c.mask] }

// Get returns the value of a key, if there is one.
func (c *Cache[K, V]) Get(key K) (v V, ok bool) {
	if c == nil {
		return v, false
	}
	s := c.shard(key)
	s.mu.RLock()
	e, ok := s.young[key]
	old := false
	if !ok && len(s.old) > 0 {
		_, old = s.old[key]
	}
	s.mu.RUnlock()
	if !old {
		return e.value, ok
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.find(s, key)
}

// find is Get with the shard locked.
func (c *Cache[K, V]) find(s *shard[K, V], key K) (v V, ok bool) {
	if e, ok := s.young[key]; ok {
		return e.value, true
	}
	e, ok := s.old[key]
	if ok {
		delete(s.old, key)
		s.bytes[1] -= e.size
		c.add(s, key, e)
	}
	return e.value, ok
}

// add puts an entry that is in neither half into the young half.
func (c *Cache[K, V]) add(s *shard[K, V], key K, e entry[V]) {
	if s.bytes[0]+e.size > c.half {
		c.turn(s, c.cfg.now())
	}
	s.young[key] = e
	s.bytes[0] += e.size
}

// turn evicts the old half, and makes the young half the old one.
func (c *Cache[K, V]) turn(s *shard[K, V], now time.Time) {
	if c.cfg.Group != nil {
		for k, e := range s.old {
			c.forgotten(k, e.value)
		}
	}
	s.old, s.young = s.young, make(map[K]entry[V])
	s.bytes = [2]int{0, s.bytes[0]}
	s.turned = now
}

// age evicts entries that were not used for too long.
func (c *Cache[K, V]) age(s *shard[K, V]) {
	if c.cfg.Idle <= 0 {
		return
	}
	now := c.cfg.now()
	since := now.Sub(s.turned)
	if since >= c.cfg.Idle || since < 0 { // the clock was set back
		c.turn(s, now)
	}
	if since >= 2*c.cfg.Idle {
		c.turn(s, now)
	}
}

// Put replaces the value of a key. The key must not share memory with a larger value.
func (c *Cache[K, V]) Put(key K, v V) {
	if c == nil {
		return
	}
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.age(s)
	c.remove(s, key)
	c.enter(s, key, v)
}

// GetOrPut returns the value of a key, or puts a fresh value and returns it. The value
// is not kept if there is no room.
func (c *Cache[K, V]) GetOrPut(key K, fresh func() V) V {
	if v, ok := c.Get(key); ok {
		return v
	}
	v := fresh()
	if c == nil {
		return v
	}
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.age(s)
	if there, ok := c.find(s, key); ok {
		return there
	}
	c.enter(s, key, v)
	return v
}

// enter puts a new entry if there is room for it and in its group.
func (c *Cache[K, V]) enter(s *shard[K, V], key K, v V) {
	e := entry[V]{value: v, size: Overhead}
	if c.cfg.Size != nil {
		e.size += c.cfg.Size(key, v)
	}
	if e.size > c.half {
		return
	}
	if c.cfg.Group != nil {
		if id, ok := c.cfg.Group(key, v); ok && !c.groups.enter(id) {
			return
		}
	}
	c.add(s, key, e)
}

// Remove removes an entry.
func (c *Cache[K, V]) Remove(key K) {
	if c == nil {
		return
	}
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.remove(s, key)
}

func (c *Cache[K, V]) remove(s *shard[K, V], key K) {
	for i, half := range []map[K]entry[V]{s.young, s.old} {
		if e, ok := half[key]; ok {
			delete(half, key)
			s.bytes[i] -= e.size
			c.forgotten(key, e.value)
		}
	}
}

// forgotten counts an evicted entry of a group.
func (c *Cache[K, V]) forgotten(key K, v V) {
	if c.cfg.Group == nil {
		return
	}
	if id, ok := c.cfg.Group(key, v); ok {
		c.groups.leave(id)
	}
}

// Len returns the number of entries.
func (c *Cache[K, V]) Len() (n int) {
	c.each(func(s *shard[K, V]) { n += len(s.young) + len(s.old) })
	return n
}

// Bytes returns the memory of the entries, by Config.Size.
func (c *Cache[K, V]) Bytes() (n int) {
	c.each(func(s *shard[K, V]) { n += s.bytes[0] + s.bytes[1] })
	return n
}

func (c *Cache[K, V]) each(f func(*shard[K, V])) {
	if c == nil {
		return
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		f(s)
		s.mu.RUnlock()
	}
}

// groups counts the entries of groups.
type groups struct {
	limit   int
	mu      sync.Mutex
	entries map[[16]byte]int
}

// enter counts one more entry, unless the group is full.
func (g *groups) enter(id [16]byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entries[id] >= g.limit {
		return false
	}
	g.entries[id]++
	return true
}

func (g *groups) leave(id [16]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.entries[id]--; g.entries[id] <= 0 {
		delete(g.entries, id)
	}
}
