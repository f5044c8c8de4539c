package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/policy"
)

// A cacheKey is the hash of an input without the parts that change with
// every request: the times, the epoch, and the history of the
// session. Two requests with the same key come from the same address and
// client, for the same session with the same labels, for the same grant.
type cacheKey [sha256.Size]byte

func keyOf(name, rule string, in *policy.Input) cacheKey {
	h := sha256.New()
	// Encoding strings and numbers cannot fail.
	_ = json.NewEncoder(h).Encode([]any{
		name, rule, in.Action, in.Policy, in.Replay, in.Homeserver, in.User,
		in.Session.ID, in.Session.Device, in.Session.Mode, in.Request, in.Grant,
	})
	for _, k := range slices.Sorted(maps.Keys(in.Session.Labels)) {
		_ = json.NewEncoder(h).Encode([2]string{k, in.Session.Labels[k]})
	}
	return cacheKey(h.Sum(nil))
}

// answers caches answers for ttl. It may be used concurrently.
type answers struct {
	ttl  time.Duration
	kept *cache.Cache[cacheKey, cached]
}

type cached struct {
	Answer
	until time.Time
}

// cacheBytes bounds the cached answers of one webhook.
const cacheBytes = 8 << 20

func newAnswers(ttl time.Duration) *answers {
	kept, _ := cache.New(cache.Config[cacheKey, cached]{ // the error is of a size below the minimum
		Bytes: cacheBytes, Size: func(_ cacheKey, a cached) int { return size(a.Decision) },
		Hash: func(k cacheKey) uint64 { return binary.LittleEndian.Uint64(k[:]) },
	})
	return &answers{ttl: ttl, kept: kept}
}

func (c *answers) get(key cacheKey, now time.Time) (Answer, bool) {
	a, ok := c.kept.Get(key)
	if !ok || !now.Before(a.until) {
		return Answer{}, false
	}
	a.Decision = a.Decision.Clone()
	return a.Answer, true
}

func (c *answers) put(key cacheKey, a Answer, now time.Time) {
	a.Decision = a.Decision.Clone() // the caller may change its copy
	c.kept.Put(key, cached{a, now.Add(c.ttl)})
}

// size estimates the memory of a decision.
func size(d policy.Decision) int {
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

// Bounds of a key in bytes; [ParseKey] refuses other files.
const (
	minKey = 32
	MaxKey = 4096
)

// ParseKey returns the key in the contents of a key file, without the white space
// around it.
func ParseKey(data []byte) (secret.Bytes, error) {
	key := bytes.TrimSpace(data)
	switch {
	case len(data) > MaxKey:
		return nil, fmt.Errorf("key has more than %d bytes", MaxKey)
	case len(key) < minKey:
		return nil, fmt.Errorf("key has %d bytes, want at least %d", len(key), minKey)
	}
	return secret.Bytes(key), nil
}

// sign returns the value of the signature header.
func sign(key secret.Bytes, now time.Time, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%d.%s", now.Unix(), body)
	return fmt.Sprintf("t=%d,v1=%x", now.Unix(), mac.Sum(nil))
}
