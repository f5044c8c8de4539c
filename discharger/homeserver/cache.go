package homeserver

import (
	"strings"
	"sync"
)

// cache remembers verified bundles by their text. It is bounded and forgets in
// two steps: once the young half of a shard is full it becomes the old half,
// and what was old is gone; whatever is asked for in the old half moves to the
// young one. A hit there takes a read lock and one map lookup.
//
// The map compares the whole text, so nothing but the very bundle that was
// verified is found. It is found by the hash that Go's maps use, seeded anew in
// every process, rather than by SHA-256: of the text of a bundle that would take
// several times as long as all the rest, and keep nothing from anyone who can
// read this memory, for the master keys are there too.
//
// A nil cache remembers nothing.
type cache struct {
	shards [cacheShards]shard
	limit  int // of each half of a shard
}

const cacheShards = 16

type shard struct {
	mu         sync.RWMutex
	young, old map[string]*verified
}

// newCache makes a cache for about size bundles.
func newCache(size int) *cache {
	c := &cache{limit: max(1, size/(2*cacheShards))}
	for i := range c.shards {
		c.shards[i].young = make(map[string]*verified)
	}
	return c
}

// shard picks by the end of the text, which is the end of a signature. The
// last character holds only some of the bits, so it is left out.
func (c *cache) shard(bundle string) *shard {
	if len(bundle) < 3 {
		return &c.shards[0]
	}
	return &c.shards[(bundle[len(bundle)-2]^bundle[len(bundle)-3]<<2)%cacheShards]
}

// get finds a bundle, or nil.
func (c *cache) get(bundle string) *verified {
	if c == nil {
		return nil
	}
	s := c.shard(bundle)
	s.mu.RLock()
	v := s.young[bundle]
	old := v == nil && s.old[bundle] != nil
	s.mu.RUnlock()
	if old {
		return c.renew(s, bundle)
	}
	return v
}

// renew moves a bundle from the old half to the young one.
func (c *cache) renew(s *shard, bundle string) *verified {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.old[bundle]
	if v == nil {
		return s.young[bundle] // somebody else was faster
	}
	delete(s.old, bundle)
	s.add(strings.Clone(bundle), v, c.limit)
	return v
}

// put remembers a bundle.
func (c *cache) put(bundle string, v *verified) {
	if c == nil {
		return
	}
	// The text may be a piece of a larger one, such as all of a request's
	// headers, which is not to be kept with it.
	bundle = strings.Clone(bundle)
	s := c.shard(bundle)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(bundle, v, c.limit)
}

// add puts a bundle into the young half. The shard is locked.
func (s *shard) add(bundle string, v *verified, limit int) {
	if len(s.young) >= limit {
		s.old, s.young = s.young, make(map[string]*verified, limit)
	}
	s.young[bundle] = v
}
