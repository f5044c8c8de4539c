package homeserver

import (
	"fmt"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
)

// ring is all that depends on keys. It is immutable: [Homeserver.Reload] replaces
// it. It has the cache of verified bundles, so that none outlives the key that it
// was verified with.
type ring struct {
	keys    map[keyID]Key
	retired [][4]byte
	mint    Key
	sealers map[caveat.Version]*caveat.Sealer
	cache   *verifiedBundles // nil: none

	maxConditions, maxCondition int // see Config
}

// newRing checks the keys of a configuration with defaults.
func newRing(cfg *Config) (*ring, error) {
	keys, err := cfg.Keys.byID()
	if err != nil {
		return nil, err
	}
	for id := range keys {
		if slices.Contains(cfg.Retired, id) {
			return nil, fmt.Errorf("master key %x is in the ring and retired", id)
		}
	}
	r := &ring{
		keys: keys, retired: slices.Clone(cfg.Retired), mint: cfg.Keys[0], sealers: make(map[caveat.Version]*caveat.Sealer),
		maxConditions: cfg.MaxConditions, maxCondition: cfg.MaxCondition,
	}
	for _, version := range []caveat.Version{caveat.V1, caveat.V2, caveat.V3} {
		r.sealers[version], err = caveat.NewSealer(caveat.SealerConfig{Version: version, Homeserver: cfg.KeyPair, Discharger: cfg.Discharger})
		if err != nil {
			return nil, err
		}
	}
	if cfg.CacheBytes > 0 {
		if r.cache, err = newVerifiedBundles(cfg); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// key returns the master key with an id.
func (r *ring) key(id keyID) (Key, error) {
	if k, ok := r.keys[id]; ok {
		return k, nil
	}
	if slices.Contains(r.retired, id) {
		return Key{}, &Error{Kind: ErrRetiredKey, Part: PartAccess}
	}
	return Key{}, &Error{Kind: ErrUnknownKey, Part: PartAccess, Err: fmt.Errorf("key %x", id[:])}
}

// Reload replaces the keys: Keys, Retired, KeyPair and Discharger of a configuration.
// Its other fields are ignored. Calls in progress finish with the previous keys.
// Errors are those of [New]; after an error, nothing has changed.
func (h *Homeserver) Reload(cfg Config) error {
	next := h.cfg
	next.Keys, next.Retired, next.KeyPair, next.Discharger = cfg.Keys, cfg.Retired, cfg.KeyPair, cfg.Discharger
	r, err := newRing(&next)
	if err != nil {
		return fmt.Errorf("reload homeserver: %w", err)
	}
	h.ring.Store(r)
	return nil
}
