package homeserver

import (
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/cache"
)

// verifiedBundles caches verified bundles by their text.
//
// The whole text is compared, so that only the verified bundle is found. The key is
// not a SHA-256 of the text: computing one takes several times as long as the rest
// of a look-up, and hides nothing from a reader of this memory, where the master
// keys are too.
type verifiedBundles = cache.Cache[string, *verified]

const (
	// bundleIdle is how long an unused bundle is kept. Clients with a long poll
	// come every half minute.
	bundleIdle = 10 * time.Minute
	// bundlesOfSession bounds the cached bundles of one session that have conditions
	// of a holder, who can make any number of them.
	bundlesOfSession = 8
)

func newVerifiedBundles(cfg *Config) (*verifiedBundles, error) {
	return cache.New(cache.Config[string, *verified]{
		Bytes: cfg.CacheBytes,
		Size:  func(text string, v *verified) int { return len(text) + v.size() },
		Idle:  bundleIdle, PerGroup: bundlesOfSession,
		Group: func(_ string, v *verified) (session [16]byte, narrowed bool) {
			return v.identity.Session, v.narrowed
		},
		Hash: signatureBits,
	}.WithClock(cfg.now))
}

// signatureBits returns bits of the end of a bundle, which is the end of a
// signature. The last character, which may encode fewer bits, is left out.
func signatureBits(text string) uint64 {
	if len(text) < 3 {
		return 0
	}
	return uint64(text[len(text)-2] ^ text[len(text)-3]<<2)
}

// keep caches a bundle. It clones the text, which may share the memory of all
// headers of a request.
func (r *ring) keep(text string, v *verified) {
	if r.cache != nil {
		r.cache.Put(strings.Clone(text), v)
	}
}

// size returns about how many bytes v takes.
func (v *verified) size() int {
	const self, address, other = 320, 64, 48
	n := self + len(v.identity.User) + len(v.identity.Device) + len(v.identity.Payload) + len(v.addresses)*address
	for i := range v.others {
		n += other + len(v.others[i].condition)
	}
	return n
}
