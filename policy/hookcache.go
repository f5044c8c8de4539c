package policy

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"
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
	mu      sync.Mutex
	answers map[cacheKey]cached
}

type cached struct {
	answer
	until time.Time
}

// maxCached is how many answers are kept.
const maxCached = 10000

func newHookCache(ttl time.Duration) *hookCache {
	return &hookCache{ttl: ttl, answers: map[cacheKey]cached{}}
}

func (c *hookCache) get(key cacheKey, now time.Time) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.answers[key]
	if !ok || !now.Before(a.until) {
		return answer{}, false
	}
	a.decision = cloneDecision(a.decision)
	return a.answer, true
}

// put keeps an answer. When there is no room, what has run out makes some, and
// if nothing has, a few answers that happen to come first.
func (c *hookCache) put(key cacheKey, a answer, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.answers) >= maxCached {
		maps.DeleteFunc(c.answers, func(_ cacheKey, old cached) bool { return !now.Before(old.until) })
		for k := range c.answers {
			if len(c.answers) < maxCached*9/10 {
				break
			}
			delete(c.answers, k)
		}
	}
	a.decision = cloneDecision(a.decision) // the caller's is the caller's
	c.answers[key] = cached{a, now.Add(c.ttl)}
}
