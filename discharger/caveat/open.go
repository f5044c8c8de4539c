package caveat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/nacl/box"

	"github.com/discharger/discharger/discharger/secret"
)

// Homeserver is one key of a registered homeserver. During a key change, a homeserver
// is registered under one name with both keys.
type Homeserver struct {
	Name    string
	Key     PublicKey
	Retired bool // the homeserver uses neither the key any more, nor caveats sealed with it
}

// OpenerConfig configures an [Opener].
type OpenerConfig struct {
	// Keys are the discharger's own pairs, at least one, newest first. The first is
	// advertised; caveats addressed to any of them open.
	Keys []KeyPair
	// Retired are the ids of retired pairs: the first four bytes of the public
	// keys. Caveats addressed to one fail with [ErrRetired].
	Retired [][prefixSize]byte
	// Homeservers are the registered homeservers. There may be none.
	Homeservers []Homeserver
}

// Opener opens the caveats that registered homeservers have sealed for the
// discharger. It is immutable and safe for concurrent use. It has the shared key of
// each pair of own key and homeserver key, but no private key.
type Opener struct {
	own         []PublicKey
	retired     [][prefixSize]byte
	homeservers map[PublicKey]*registration
}

// registration is a homeserver's key with the keys shared with it, in the
// order of Opener.own.
type registration struct {
	Homeserver
	shared []sharedKey
}

// Opened is an opened caveat. It shares no memory with the caveat's id.
type Opened struct {
	Homeserver    string    // the name of the registration
	HomeserverKey PublicKey // that sealed the caveat
	Retired       bool      // of HomeserverKey: see [Homeserver]
	KeyIndex      int       // index of the own key in OpenerConfig.Keys
	Version       Version

	// RootKey is the root key of the discharge. Never empty.
	RootKey secret.Bytes
	// Condition is the condition, for [ParseCondition]. Never empty.
	Condition []byte
	// StdPrefix is the homeserver's prefix of the bakery's "std" namespace. A
	// first-party condition of the discharge is written with it and a colon,
	// "foo:time-before …" with prefix foo, and bare if it is empty, as it is for
	// V1, V2 and V3 caveats sealed by this package.
	StdPrefix string
}

// NewOpener returns an Opener. It computes the shared keys: one X25519 multiplication
// for each pair of own key and homeserver key. It refuses mismatched pairs, own keys
// with the same first four bytes, homeservers without a name, duplicate keys, own keys
// as a homeserver's, weak keys (see [CheckPublicKey]), and homeserver keys that agree
// with an own key on the same secret.
func NewOpener(cfg OpenerConfig) (*Opener, error) {
	if len(cfg.Keys) == 0 {
		return nil, errors.New("open caveats: no key pair")
	}
	o := &Opener{retired: cfg.Retired, homeservers: make(map[PublicKey]*registration, len(cfg.Homeservers))}
	for i, pair := range cfg.Keys {
		if err := pair.Validate(); err != nil {
			return nil, fmt.Errorf("open caveats: key %d: %w", i, err)
		}
		if j := o.byPrefix(pair.Public[:prefixSize]); j >= 0 {
			return nil, fmt.Errorf("open caveats: keys %d and %d begin with the same %d bytes", j, i, prefixSize)
		}
		if slices.Contains(o.retired, [prefixSize]byte(pair.Public[:prefixSize])) {
			return nil, fmt.Errorf("open caveats: key %d is retired", i)
		}
		o.own = append(o.own, pair.Public)
	}
	taken := make(map[[keySize]byte]string)
	for _, hs := range cfg.Homeservers {
		if err := o.register(hs, cfg.Keys, taken); err != nil {
			return nil, fmt.Errorf("open caveats: homeserver %q: %w", hs.Name, err)
		}
	}
	return o, nil
}

// register adds one homeserver key. taken has the shared keys so far and their
// homeservers: adding a point of low order to a public key makes another that agrees
// on the same secret, and thus opens the first one's caveats.
func (o *Opener) register(hs Homeserver, keys []KeyPair, taken map[[keySize]byte]string) error {
	if hs.Name == "" {
		return fmt.Errorf("key %s has no name", hs.Key)
	}
	if err := CheckPublicKey(hs.Key); err != nil {
		return err
	}
	if o.byKey(hs.Key) >= 0 {
		return fmt.Errorf("key %s is the discharger's own", hs.Key)
	}
	if other, ok := o.homeservers[hs.Key]; ok {
		return fmt.Errorf("key %s is already registered, for %q", hs.Key, other.Name)
	}
	reg := &registration{Homeserver: hs}
	for _, pair := range keys {
		shared := agree(pair.Private, hs.Key)
		if other, ok := taken[*shared()]; ok {
			return fmt.Errorf("%w: key %s shares its secret with one of %q", ErrWeakKey, hs.Key, other)
		}
		taken[*shared()] = hs.Name
		reg.shared = append(reg.shared, shared)
	}
	o.homeservers[hs.Key] = reg
	return nil
}

// PublicKey returns the advertised key, to which homeservers seal caveats.
func (o *Opener) PublicKey() PublicKey { return o.own[0] }

// Open opens a caveat id, or the payload that came with one. The error matches
// [ErrNotOurs], [ErrRetired], [ErrUnknownHomeserver] or [ErrMalformed], checked in
// the order: outer form, own key, homeserver, box. The id is neither changed nor kept.
func (o *Opener) Open(id []byte) (Opened, error) {
	if len(id) == 0 {
		return Opened{}, fmt.Errorf("%w: empty", ErrMalformed)
	}
	switch id[0] {
	case byte(V2), byte(V3):
		return o.openBinary(id)
	case textMark:
		return o.openText(id)
	}
	return Opened{}, fmt.Errorf("%w: unknown version %d", ErrMalformed, id[0])
}

func (o *Opener) openBinary(id []byte) (Opened, error) {
	if len(id) > MaxBinarySize {
		return Opened{}, fmt.Errorf("%w: %d bytes, more than %d", ErrMalformed, len(id), MaxBinarySize)
	}
	if len(id) < boxAt+box.Overhead {
		return Opened{}, fmt.Errorf("%w: %d bytes are too few (an id without its payload?)", ErrMalformed, len(id))
	}
	version, index := Version(id[0]), o.byPrefix(id[prefixAt:keyAt])
	if index < 0 {
		return Opened{}, o.notOurs(id[prefixAt:keyAt])
	}
	from, plain, err := o.unbox(index, (*PublicKey)(id[keyAt:nonceAt]), (*[nonceSize]byte)(id[nonceAt:boxAt]), id[boxAt:])
	if err != nil {
		return Opened{}, err
	}
	inner, err := readContent(version, plain)
	if err != nil {
		return Opened{}, fmt.Errorf("%w: sealed part: %w", ErrMalformed, err)
	}
	return inner.opened(version, index, from), nil
}

// notOurs returns the error for a caveat to a key with these first bytes, which is
// not in the ring.
func (o *Opener) notOurs(prefix []byte) error {
	if slices.Contains(o.retired, [prefixSize]byte(prefix)) {
		return ErrRetired
	}
	return ErrNotOurs
}

// unbox decrypts a box for the own key at index, sealed by a homeserver's key. It
// returns the registration of that key.
func (o *Opener) unbox(index int, key *PublicKey, nonce *[nonceSize]byte, sealed []byte) (*registration, []byte, error) {
	from, ok := o.homeservers[*key]
	if !ok {
		return nil, nil, ErrUnknownHomeserver
	}
	plain, ok := box.OpenAfterPrecomputation(nil, sealed, nonce, from.shared[index]())
	if !ok {
		return nil, nil, fmt.Errorf("%w: box does not open", ErrMalformed)
	}
	return from, plain, nil
}

// content is the decrypted content of the box.
type content struct {
	rootKey, condition []byte
	stdPrefix          string
}

// readContent parses the content of a binary caveat.
func readContent(version Version, plain []byte) (s content, err error) {
	if len(plain) == 0 || plain[0] != byte(version) {
		return content{}, errors.New("version differs from the outer version")
	}
	var ok bool
	if s.rootKey, s.condition, ok = cutField(plain[1:]); !ok {
		return content{}, errors.New("root key runs past the end")
	}
	if version == V3 {
		var namespace []byte
		if namespace, s.condition, ok = cutField(s.condition); !ok {
			return content{}, errors.New("namespace runs past the end")
		}
		if s.stdPrefix, err = stdPrefix(namespace); err != nil {
			return content{}, err
		}
	}
	return s, s.check()
}

// check refuses an empty root key, with which any client could make the discharge, and
// an empty condition.
func (s *content) check() error {
	if len(s.rootKey) == 0 {
		return errors.New("root key is empty")
	}
	if len(s.condition) == 0 {
		return errors.New("condition is empty")
	}
	return nil
}

func (s *content) opened(version Version, index int, from *registration) Opened {
	return Opened{
		Homeserver:    from.Name,
		HomeserverKey: from.Key,
		Retired:       from.Retired,
		KeyIndex:      index,
		Version:       version,
		RootKey:       s.rootKey,
		Condition:     s.condition,
		StdPrefix:     s.stdPrefix,
	}
}

// cutField splits data after a uvarint length and as many bytes. The length is
// compared with the remaining length and not added to, so that it cannot overflow.
func cutField(data []byte) (field, rest []byte, ok bool) {
	length, n := binary.Uvarint(data)
	if n <= 0 || length > uint64(len(data)-n) {
		return nil, nil, false
	}
	end := n + int(length)
	return data[n:end:end], data[end:], true
}

// byPrefix returns the index of the own key with these first bytes; -1: none.
func (o *Opener) byPrefix(prefix []byte) int {
	return slices.IndexFunc(o.own, func(k PublicKey) bool { return bytes.Equal(k[:prefixSize], prefix) })
}

// byKey returns the index of an own key; -1: none.
func (o *Opener) byKey(key PublicKey) int { return slices.Index(o.own, key) }
