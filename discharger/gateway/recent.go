package gateway

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
)

// recent keeps what saves a question to the service or to the homeserver, or a
// computation. Whatever is lost costs that again, and changes no answer.
type recent[K comparable, V any] struct{ kept *cache.Cache[K, V] }

// wholeCache is what Config.CacheBytes is divided into. The parts in use depend on
// the mode of most sessions.
const wholeCache = 64

// verifiedParts is the part of it for the verifier's cache.
const verifiedParts = 16

// How long entries are kept that are not used. A client that waits for news comes
// every half minute.
const (
	tokenIdle = time.Hour
	endIdle   = 48 * time.Hour
)

// variantsOfSession bounds the tokens of one session that are kept, beside the one
// that its holder narrowed. Others work as well, and are verified every time.
const variantsOfSession = 8

// newRecent makes a cache of some parts of Config.CacheBytes.
func newRecent[K comparable, V any](g *Gateway, parts int, cfg cache.Config[K, V]) (*recent[K, V], error) {
	cfg.Bytes = max(1, g.cfg.CacheBytes/wholeCache*parts)
	cfg.Clock = g.cfg.Clock
	kept, err := cache.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	g.caches = append(g.caches, kept.Bytes)
	return &recent[K, V]{kept}, nil
}

func (r *recent[K, V]) get(key K) (V, bool)              { return r.kept.Get(key) }
func (r *recent[K, V]) put(key K, v V)                   { r.kept.Put(key, v) }
func (r *recent[K, V]) getOrPut(key K, fresh func() V) V { return r.kept.GetOrPut(key, fresh) }
func (r *recent[K, V]) remove(key K)                     { r.kept.Remove(key) }
func (r *recent[K, V]) size() int                        { return r.kept.Len() }

// newCaches makes what the gateway keeps in memory beside what it is busy with.
func (g *Gateway) newCaches() (err error) {
	if g.held, err = newHeldSessions(g); err != nil {
		return err
	}
	if g.opened, err = newRecent(g, 4, ofSession(tokenIdle, func(o openedToken) int { return len(o.payload) + len(o.token) })); err != nil {
		return err
	}
	if g.dead, err = newEndings(g); err != nil {
		return err
	}
	if g.vouched, err = newRecent(g, 1, ofSession[vouch](tokenIdle, nil)); err != nil {
		return err
	}
	if g.gone, err = newRecent(g, 1, ofSession[struct{}](endIdle, nil)); err != nil {
		return err
	}
	if g.logins, err = newRecent(g, 1, cache.Config[leaseKey, time.Time]{
		Idle: endIdle, Size: func(k leaseKey, _ time.Time) int { return len(k.user) + len(k.device) },
	}); err != nil {
		return err
	}
	if g.owners, err = newRecent(g, 1, cache.Config[[32]byte, owner]{
		Idle: whoamiLife, Size: func(_ [32]byte, o owner) int { return len(o.user) },
	}); err != nil {
		return err
	}
	g.canonical, err = newRecent(g, 6, cache.Config[string, struct{}]{
		Idle: tokenIdle, Hash: tokenBits, Size: func(token string, _ struct{}) int { return len(token) },
	})
	return err
}

// ofSession returns the configuration of a cache by session. A nil size is for
// values that point to nothing.
func ofSession[V any](idle time.Duration, size func(V) int) cache.Config[caveat.SessionID, V] {
	cfg := cache.Config[caveat.SessionID, V]{
		Idle: idle, Hash: func(id caveat.SessionID) uint64 { return binary.LittleEndian.Uint64(id[:]) },
	}
	if size != nil {
		cfg.Size = func(_ caveat.SessionID, v V) int { return size(v) }
	}
	return cfg
}

// tokenBits returns bits of the end of a token, which is the end of a signature.
// The last character holds only some, so it is left out.
func tokenBits(token string) uint64 {
	if len(token) < 3 {
		return 0
	}
	return uint64(token[len(token)-2] ^ token[len(token)-3]<<2)
}

// cacheBytes returns how much memory the caches take.
func (g *Gateway) cacheBytes() (n int) {
	for _, bytes := range g.caches {
		n += bytes()
	}
	return n
}
