package homeserver

import (
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/cache"
)

// verifiedBundles keeps verified bundles by their text.
//
// The whole text is compared, so that no bundle is found but the very one that was
// verified. It is found by the hash that Go's maps use, seeded anew in every
// process, rather than by SHA-256: of the text of a bundle that would take several
// times as long as all the rest, and hide nothing from a reader of this memory,
// where the master keys are too.
type verifiedBundles = cache.Cache[string, *verified]

const (
	// bundleIdle is for how long a bundle is kept that is not used. Clients that
	// wait for news come every half minute.
	bundleIdle = 10 * time.Minute
	// bundlesOfSession bounds the bundles of one session that are kept, if they
	// have conditions that its holder may have added: of these, anyone can make any
	// number.
	bundlesOfSession = 8
)

func newVerifiedBundles(cfg *Config) (*verifiedBundles, error) {
	return cache.New(cache.Config[string, *verified]{
		Bytes: cfg.CacheBytes,
		Size:  func(text string, v *verified) int { return len(text) + v.size() },
		Idle:  bundleIdle, Clock: cfg.Clock, PerGroup: bundlesOfSession,
		Group: func(_ string, v *verified) (session [16]byte, narrowed bool) {
			return v.identity.Session, v.narrowed
		},
		Hash: signatureBits,
	})
}

// signatureBits returns bits of the end of a bundle, which is the end of a
// signature. The last character holds only some, so it is left out.
func signatureBits(text string) uint64 {
	if len(text) < 3 {
		return 0
	}
	return uint64(text[len(text)-2] ^ text[len(text)-3]<<2)
}

// keep remembers a bundle. Its text may be a piece of a larger one, such as all of
// a request's headers, which is not kept with it.
func (r *ring) keep(text string, v *verified) {
	if r.cache != nil {
		r.cache.Put(strings.Clone(text), v)
	}
}

// size returns about how many bytes it takes.
func (v *verified) size() int {
	const self, address, other = 320, 64, 48
	n := self + len(v.identity.User) + len(v.identity.Device) + len(v.identity.Payload) + len(v.addresses)*address
	for i := range v.others {
		n += other + len(v.others[i].condition)
	}
	return n
}
