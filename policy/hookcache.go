package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/cache"
)

// A cacheKey identifies what a webhook is asked about, less what changes with
// every request: the clock readings, the epoch, and the history of the
// session. Two requests with the same key come from the same address and
// client, for the same session with the same labels, for the same grant.
type cacheKey [sha256.Size]byte

func keyOf(policy, rule string, in *Input) cacheKey {
	h := sha256.New()
	// Encoding strings and numbers cannot fail.
	_ = json.NewEncoder(h).Encode([]any{
		policy, rule, in.Action, in.Policy, in.Replay, in.Homeserver, in.User,
		in.Session.ID, in.Session.Device, in.Session.Mode, in.Request, in.Grant,
	})
	for _, k := range slices.Sorted(maps.Keys(in.Session.Labels)) {
		_ = json.NewEncoder(h).Encode([2]string{k, in.Session.Labels[k]})
	}
	return cacheKey(h.Sum(nil))
}

// A hookCache keeps answers for a while. Concurrent use is safe.
type hookCache struct {
	ttl     time.Duration
	answers *cache.Cache[cacheKey, cached]
}

type cached struct {
	answer
	until time.Time
}

// hookCacheBytes is the memory for the answers of one webhook.
const hookCacheBytes = 8 << 20

func newHookCache(ttl time.Duration) *hookCache {
	answers, _ := cache.New(cache.Config[cacheKey, cached]{ // fails without room only
		Bytes: hookCacheBytes, Size: func(_ cacheKey, a cached) int { return a.decision.size() },
		Hash: func(k cacheKey) uint64 { return binary.LittleEndian.Uint64(k[:]) },
	})
	return &hookCache{ttl: ttl, answers: answers}
}

func (c *hookCache) get(key cacheKey, now time.Time) (answer, bool) {
	a, ok := c.answers.Get(key)
	if !ok || !now.Before(a.until) {
		return answer{}, false
	}
	a.decision = cloneDecision(a.decision)
	return a.answer, true
}

// put keeps an answer.
func (c *hookCache) put(key cacheKey, a answer, now time.Time) {
	a.decision = cloneDecision(a.decision) // the caller's is the caller's
	c.answers.Put(key, cached{a, now.Add(c.ttl)})
}

// size returns about how many bytes a decision takes.
func (d *Decision) size() int {
	const self, text, label = 200, 16, 48
	n := self + len(d.Code) + len(d.Message) + len(d.Rule) + len(d.Hash)
	for _, c := range d.Caveats {
		n += text + len(c)
	}
	for k, v := range d.Labels {
		n += label + len(k) + len(v)
	}
	return n
}
