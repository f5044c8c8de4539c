package clientname

import (
	"hash/maphash"
	"sync/atomic"
)

// Cache remembers the names of User-Agents that were seen lately, since reading
// one takes longer than much of a request. The zero value is ready for use. It is
// bounded: a User-Agent replaces another one of its slot. A Cache is safe for
// concurrent use.
type Cache struct {
	slots [slots]atomic.Pointer[named]
}

const slots = 512

// cacheSeed differs between processes, so that no client can choose the slot of
// another.
var cacheSeed = maphash.MakeSeed()

type named struct{ userAgent, name string }

// Of returns the name of a User-Agent, as [Of] does.
func (c *Cache) Of(userAgent string) string {
	if len(userAgent) > maxRead {
		return Of(userAgent)
	}
	slot := &c.slots[maphash.String(cacheSeed, userAgent)%slots]
	if n := slot.Load(); n != nil && n.userAgent == userAgent {
		return n.name
	}
	n := &named{userAgent, Of(userAgent)}
	slot.Store(n)
	return n.name
}
