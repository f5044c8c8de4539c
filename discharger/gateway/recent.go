package gateway

import (
	"hash/maphash"
	"sync"
)

// recent remembers what was used recently, up to a bound. It forgets in two
// steps: once the young half of a shard is full it becomes the old half, and
// what was old is gone; what is asked for in the old half moves to the young
// one. So a look-up is a read lock and one look into a map, and nothing that is
// in use is forgotten.
type recent[K comparable, V any] struct {
	seed   maphash.Seed
	limit  int // of each half of a shard
	shards [recentShards]recentShard[K, V]
}

const recentShards = 16

type recentShard[K comparable, V any] struct {
	mu         sync.RWMutex
	young, old map[K]V
}

// newRecent makes a memory of about size entries.
func newRecent[K comparable, V any](size int) *recent[K, V] {
	r := &recent[K, V]{seed: maphash.MakeSeed(), limit: max(1, size/(2*recentShards))}
	for i := range r.shards {
		r.shards[i].young = make(map[K]V)
	}
	return r
}

func (r *recent[K, V]) shard(key K) *recentShard[K, V] {
	return &r.shards[maphash.Comparable(r.seed, key)%recentShards]
}

// get finds an entry.
func (r *recent[K, V]) get(key K) (V, bool) {
	s := r.shard(key)
	s.mu.RLock()
	v, ok := s.young[key]
	s.mu.RUnlock()
	if ok {
		return v, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(key, r.limit)
}

// find is get with the shard locked.
func (s *recentShard[K, V]) find(key K, limit int) (V, bool) {
	if v, ok := s.young[key]; ok {
		return v, true
	}
	v, ok := s.old[key]
	if ok {
		delete(s.old, key)
		s.add(key, v, limit)
	}
	return v, ok
}

func (s *recentShard[K, V]) add(key K, v V, limit int) {
	if len(s.young) >= limit {
		s.old, s.young = s.young, make(map[K]V, limit)
	}
	s.young[key] = v
}

// put remembers an entry, in place of one that is there.
func (r *recent[K, V]) put(key K, v V) {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.old, key)
	s.add(key, v, r.limit)
}

// getOrPut finds an entry, or remembers a new one.
func (r *recent[K, V]) getOrPut(key K, fresh func() V) V {
	if v, ok := r.get(key); ok {
		return v
	}
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.find(key, r.limit); ok {
		return v
	}
	v := fresh()
	s.add(key, v, r.limit)
	return v
}

// remove forgets an entry.
func (r *recent[K, V]) remove(key K) {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.old, key)
	delete(s.young, key)
}

// size counts what is remembered.
func (r *recent[K, V]) size() int {
	n := 0
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.RLock()
		n += len(s.young) + len(s.old)
		s.mu.RUnlock()
	}
	return n
}
