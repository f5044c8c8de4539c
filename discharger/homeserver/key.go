package homeserver

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/secret"
)

// Key is a master key: 32 random bytes, from which the root keys of access macaroons are
// derived. Its holder can mint access macaroons for any user. It prints, logs and
// marshals as REDACTED; only Encode shows it. The zero value is not a usable key.
type Key struct{ secret.Key }

// Keys is a ring of master keys, newest first. The first mints, all of them verify.
type Keys []Key

// NewKey returns a random key.
func NewKey() Key { return Key{secret.NewKey()} }

// ParseKey decodes the text of Encode, in any of the four base64 alphabets. The
// error does not contain the text.
func ParseKey(s string) (Key, error) {
	k, err := secret.ParseKey(s)
	if err != nil {
		return Key{}, fmt.Errorf("parse master key: %w", err)
	}
	return Key{k}, nil
}

// keyID names a key in the identifiers of access macaroons.
type keyID = [4]byte

// labelRootKey separates this use of a master key from its id.
const labelRootKey = "discharger/homeserver access macaroon root key v1\x00"

// ID returns the four bytes that name the key in access macaroons. They reveal
// nothing else about it.
func (k Key) ID() [4]byte { return keyfile.RootID(k.Key) }

// rootKey returns the root key of the access macaroon with this identifier.
func (k *Key) rootKey(identifier []byte) [32]byte {
	return rawmacaroon.Hash((*[32]byte)(&k.Key), []byte(labelRootKey), identifier)
}

// byID returns the keys by their ids.
func (ks Keys) byID() (map[keyID]Key, error) {
	if len(ks) == 0 {
		return nil, errors.New("no master key")
	}
	ring := make(map[keyID]Key, len(ks))
	for i, k := range ks {
		if k == (Key{}) {
			return nil, fmt.Errorf("master key %d is all zeros", i)
		}
		id := keyID(k.ID())
		if _, taken := ring[id]; taken {
			return nil, fmt.Errorf("master key %d is a duplicate, or shares its id %x with another", i, id)
		}
		ring[id] = k
	}
	return ring, nil
}

// LogValue returns REDACTED: a log handler would look into the slice.
func (Keys) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }

// ConfigFromFile reads a homeserver's key file, as "discharger keys new --kind
// homeserver" makes it, and returns the configuration in it: Name, Keys, Retired,
// KeyPair, Discharger and Location. [Homeserver.Reload] takes the same after the
// file has changed. The error matches [keyfile.ErrExposed] if other users can read
// or change the file.
func ConfigFromFile(path string, a keyfile.Access) (Config, error) {
	ring, err := keyfile.Load(path, a)
	if err != nil {
		return Config{}, err
	}
	if ring.Owner != keyfile.Homeserver {
		return Config{}, fmt.Errorf("key file %s: has keys of a %s, want a %s's", path, ring.Owner, keyfile.Homeserver)
	}
	return ConfigFromRing(ring), nil
}

// ConfigFromRing is [ConfigFromFile] for a ring in memory, whose owner is a homeserver.
func ConfigFromRing(r *keyfile.Ring) Config {
	cfg := Config{
		Name: r.Peer.Name, Location: r.Peer.Service, Discharger: r.Peer.ServiceKey,
		KeyPair: r.Of(keyfile.Seal)[0].Pair(),
	}
	for _, k := range r.Of(keyfile.Root) {
		cfg.Keys = append(cfg.Keys, Key{k.Secret()})
	}
	for _, k := range r.RetiredOf(keyfile.Root) {
		cfg.Retired = append(cfg.Retired, k.ID)
	}
	return cfg
}

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
