// Package keyfile stores secret keys in files: those of the service, and those that a
// homeserver uses with it. It is a leaf: a homeserver that loads a key file needs
// neither the service nor its policies.
//
// # The format
//
// A key file is one JSON object. Of the keys of one kind, the first that is not staged
// is used; beyond that their order has no meaning.
//
//	{
//	  "note": "Secret: …",                 for people
//	  "version": 1,
//	  "owner": "service",                  or "homeserver"
//	  "homeserver": {                      of a homeserver only
//	    "name": "example.org",
//	    "service": "https://…",            URL of the service
//	    "service_key": "…"                 its public key, base64
//	  },
//	  "retired": [                         retired keys
//	    "91c0e0b2",                        of kind refresh: the id
//	    {"kind": "seal", "id": "…", "public": "…"}
//	  ],
//	  "keys": [
//	    {
//	      "kind": "discharger",
//	      "id": "5c8e0b5f",                public name of the key
//	      "created": "2026-01-02T15:04:05Z",
//	      "staged": true,                  of a staged key only
//	      "since": "2026-01-09T10:00:00Z", when it was first used, of a key that was staged before
//	      "public": "…",                   of a key pair only
//	      "secret": "…"                    32 bytes in base64
//	    }
//	  ]
//	}
//
// A file is of version 2 if it has a staged key, a key on which [Ring.Use] was called,
// or a retired key of another kind than refresh. Every other file is of version 1, as
// programs from before December 2026 write it. Those programs refuse a file of version
// 2: at start they exit, and at a reload they keep their keys.
//
// The kinds of the service's keys:
//
//	discharger   X25519 pair to which homeservers seal caveats
//	refresh      signs refresh tokens
//	store        hashes user names to keys of the store; exactly one
//
// and of a homeserver's:
//
//	seal         X25519 pair with which it seals caveats
//	root         master key from which the root keys of access macaroons come
//	api          its key to the service's API
//
// # Rings
//
// The keys of one kind form a ring, and each key has a state:
//
//	staged    recognized; signs and seals nothing yet
//	used      signs, seals or mints; one key of each kind
//	previous  recognized; was used before
//	retired   removed; its id is kept
//
// [Ring.Add] and [Ring.Stage] add a new key, [Ring.Use] makes a key the used one, and
// [Ring.Retire] removes one, which ends the sessions that depend on it. The id of a
// retired key is kept: tokens of a retired key have ended, whereas tokens with an
// unknown id may be from a process that has a newer file.
//
// # Guarantees
//
// A file that other users can read is refused. So is one with an unknown or duplicate
// member, a key whose id or public half is not its own, a duplicate key, and a ring
// without a used key of every kind. A file is replaced atomically: after a crash it is
// the old one or the new one. [Create] never replaces a file, and concurrent calls of
// [Update], from different programs too, are serialized.
//
// Keys print, log and marshal as REDACTED. Errors do not quote the file.
//
// The keys that sign security events have a file of their own, see [LoadSigning]:
// receivers demand RSA, for which every tool reads PEM.
package keyfile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// Kind is the purpose of a key.
type Kind string

// The kinds of keys; see the package comment.
const (
	Discharger Kind = "discharger"
	Refresh    Kind = "refresh"
	Store      Kind = "store"
	Seal       Kind = "seal"
	Root       Kind = "root"
	API        Kind = "api"
)

// Owner is the owner of the keys in a file.
type Owner string

// The owners.
const (
	Service    Owner = "service"
	Homeserver Owner = "homeserver"
)

// Kinds returns the kinds of the owner's keys, in the order in which they are made.
func (o Owner) Kinds() []Kind {
	switch o {
	case Service:
		return []Kind{Discharger, Refresh, Store}
	case Homeserver:
		return []Kind{Seal, Root, API}
	}
	return nil
}

// ErrUnknownKey is returned for the id of a key that is not in the ring.
var ErrUnknownKey = errors.New("no key with this id")

// Ring is the content of a key file. Its methods do not change the file.
type Ring struct {
	Owner Owner
	Peer  Peer  // of a homeserver's keys; zero for the service's
	Keys  []Key // of those of one kind, the first that is not staged is used

	Retired []RetiredKey // in the order of their retirement
}

// Peer is the service for which a homeserver's keys are, and the homeserver's name.
type Peer struct {
	Name       string           // of the homeserver, as registered at the service
	Service    string           // URL of the service
	ServiceKey caveat.PublicKey // of the service
}

// RetiredKey is the public part of a retired key.
type RetiredKey struct {
	Kind   Kind
	ID     [4]byte
	Public caveat.PublicKey // of kinds discharger and seal
}

// State is the state of a key; see the package comment.
type State string

// The states of keys.
const (
	Staged   State = "staged"
	Used     State = "used"
	Previous State = "previous"
	Retired  State = "retired"
)

// NewService returns a ring with one new key of each of the service's kinds, made
// at a time.
func NewService(now time.Time) (*Ring, error) {
	return (&Ring{Owner: Service}).fill(now)
}

// NewHomeserver returns a ring with one new key of each of a homeserver's kinds.
func NewHomeserver(p Peer, now time.Time) (*Ring, error) {
	return (&Ring{Owner: Homeserver, Peer: p}).fill(now)
}

func (r *Ring) fill(now time.Time) (*Ring, error) {
	for _, kind := range r.Owner.Kinds() {
		if _, err := r.add(kind, now); err != nil {
			return nil, err
		}
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("make keys: %w", err)
	}
	return r, nil
}

// Add adds a new key, which is used from now on.
func (r *Ring) Add(kind Kind, now time.Time) (Key, error) {
	return r.insert(kind, now, false)
}

// Stage adds a new key, which is recognized but not used yet.
func (r *Ring) Stage(kind Kind, now time.Time) (Key, error) {
	return r.insert(kind, now, true)
}

func (r *Ring) insert(kind Kind, now time.Time, staged bool) (Key, error) {
	if !slices.Contains(r.Owner.Kinds(), kind) {
		return Key{}, fmt.Errorf("add key: a %s has no keys of kind %q", r.Owner, kind)
	}
	if kind == Store {
		return Key{}, errors.New("add key: a second key of kind store would lose every session")
	}
	k, err := r.add(kind, now)
	if err != nil {
		return Key{}, err
	}
	r.Keys[0].Staged, k.Staged = staged, staged
	if err := r.check(); err != nil {
		return Key{}, fmt.Errorf("add key: %w", err)
	}
	return k, nil
}

func (r *Ring) add(kind Kind, now time.Time) (Key, error) {
	k, err := newKey(kind, now)
	if err != nil {
		return Key{}, fmt.Errorf("add key: %w", err)
	}
	r.Keys = slices.Insert(r.Keys, 0, k)
	return k, nil
}

// Use makes a staged or previous key the used one, and returns it. The key that was
// used becomes a previous one. A used key is unchanged.
func (r *Ring) Use(id string, now time.Time) (Key, error) {
	k, err := r.Find(id)
	if err != nil {
		return Key{}, err
	}
	if r.StateOf(k) == Used {
		return k, nil
	}
	// Of a previous key too: tokens of the key before it are older.
	k.Staged, k.Since = false, now.UTC().Truncate(time.Second)
	r.Keys = slices.DeleteFunc(r.Keys, func(other Key) bool { return other.ID == id })
	r.Keys = slices.Insert(r.Keys, 0, k)
	return k, nil
}

// StateOf returns the state of a key in the ring.
func (r *Ring) StateOf(k Key) State {
	switch {
	case k.Staged:
		return Staged
	case r.Of(k.Kind)[0].ID == k.ID:
		return Used
	}
	return Previous
}

// Find returns the key with an id. The error matches [ErrUnknownKey].
func (r *Ring) Find(id string) (Key, error) {
	for _, k := range r.Keys {
		if k.ID == id {
			return k, nil
		}
	}
	if slices.ContainsFunc(r.Retired, func(k RetiredKey) bool { return hex.EncodeToString(k.ID[:]) == id }) {
		return Key{}, fmt.Errorf("%w: %q is retired, and its secret is deleted", ErrUnknownKey, id)
	}
	return Key{}, fmt.Errorf("%w: %q", ErrUnknownKey, id)
}

// Retire removes a key and returns it. The used key cannot be retired.
func (r *Ring) Retire(id string) (Key, error) {
	k, err := r.Find(id)
	if err != nil {
		return Key{}, err
	}
	switch {
	case k.Kind == Store:
		return Key{}, errors.New("retire key: without the key of kind store, every session would be lost")
	case r.StateOf(k) == Used:
		return Key{}, fmt.Errorf("retire key: %s is the %s key in use; use another one first", id, k.Kind)
	}
	r.Keys = slices.DeleteFunc(r.Keys, func(other Key) bool { return other.ID == id })
	raw, err := hex.DecodeString(k.ID)
	if err != nil || len(raw) != 4 {
		return Key{}, fmt.Errorf("retire key: %q is not an id", k.ID)
	}
	r.Retired = append(r.Retired, RetiredKey{Kind: k.Kind, ID: [4]byte(raw), Public: k.Public})
	return k, nil
}

// Of returns the keys of one kind: the used one, the previous ones with the
// latest first, and the staged ones.
func (r *Ring) Of(kind Kind) []Key {
	var keys, staged []Key
	for _, k := range r.Keys {
		switch {
		case k.Kind != kind:
		case k.Staged:
			staged = append(staged, k)
		default:
			keys = append(keys, k)
		}
	}
	return append(keys, staged...)
}

// RetiredOf returns the retired keys of one kind.
func (r *Ring) RetiredOf(kind Kind) []RetiredKey {
	return slices.DeleteFunc(slices.Clone(r.Retired), func(k RetiredKey) bool { return k.Kind != kind })
}

// Successor returns the key that replaced a previous one. ok is false for a key in
// another state.
func (r *Ring) Successor(k Key) (next Key, ok bool) {
	if r.StateOf(k) != Previous {
		return Key{}, false
	}
	keys := r.Of(k.Kind)
	return keys[slices.IndexFunc(keys, func(o Key) bool { return o.ID == k.ID })-1], true
}

// check validates a ring.
func (r *Ring) check() error {
	kinds := r.Owner.Kinds()
	if kinds == nil {
		return fmt.Errorf("unknown owner %q", r.Owner)
	}
	seen := make(map[string]bool)
	for _, k := range r.Keys {
		if !slices.Contains(kinds, k.Kind) {
			return fmt.Errorf("key %s is of kind %q, which a %s does not have", k.ID, k.Kind, r.Owner)
		}
		if seen[k.ID] {
			return fmt.Errorf("duplicate key %s", k.ID)
		}
		seen[k.ID] = true
		if k.Staged && !k.Since.IsZero() {
			return fmt.Errorf("key %s is staged and has been used", k.ID)
		}
	}
	for _, kind := range kinds {
		switch keys := r.Of(kind); {
		case len(keys) == 0:
			return fmt.Errorf("no key of kind %s", kind)
		case keys[0].Staged:
			return fmt.Errorf("every key of kind %s is staged", kind)
		}
	}
	if len(r.Of(Store)) > 1 {
		return errors.New("more than one key of kind store")
	}
	if err := r.checkRetired(); err != nil {
		return err
	}
	if r.Owner == Homeserver {
		return r.Peer.check()
	}
	return nil
}

func (r *Ring) checkRetired() error {
	for i, k := range r.Retired {
		if !slices.Contains(r.Owner.Kinds(), k.Kind) || k.Kind == Store {
			return fmt.Errorf("retired[%d] is of kind %q, of which a %s retires none", i, k.Kind, r.Owner)
		}
		pair := k.Kind == Discharger || k.Kind == Seal
		if pair != (k.Public != caveat.PublicKey{}) || pair && [4]byte(k.Public[:4]) != k.ID {
			return fmt.Errorf("retired[%d] has a public key that does not match its id", i)
		}
		if pair {
			if err := caveat.CheckPublicKey(k.Public); err != nil {
				return fmt.Errorf("retired[%d]: %w", i, err)
			}
		}
		if _, err := r.Find(hex.EncodeToString(k.ID[:])); err == nil {
			return fmt.Errorf("retired[%d] is in the ring", i)
		}
	}
	return nil
}

func (p Peer) check() error {
	if p.Name == "" || len(p.Name) > 255 {
		return errors.New("name of the homeserver is empty or longer than 255 bytes")
	}
	if u, err := url.Parse(p.Service); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("service is not an http or https URL")
	}
	if err := caveat.CheckPublicKey(p.ServiceKey); err != nil {
		return fmt.Errorf("service_key: %w", err)
	}
	return nil
}
