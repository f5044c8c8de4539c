// Package keyfile keeps secret keys in files: those of the service, and those
// that a homeserver uses with it.
//
// # The format
//
// A key file is one JSON object. Its keys are in no particular order but for
// those of one kind, of which the first that is not staged is used.
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
//	  "retired": [                         keys that were taken out
//	    "91c0e0b2",                        of kind refresh: the id
//	    {"kind": "seal", "id": "…", "public": "…"}
//	  ],
//	  "keys": [
//	    {
//	      "kind": "discharger",
//	      "id": "5c8e0b5f",                names it, and gives nothing away
//	      "created": "2026-01-02T15:04:05Z",
//	      "staged": true,                  of a staged key only
//	      "since": "2026-01-09T10:00:00Z", when it was first used, of a key that was staged before
//	      "public": "…",                   of a key pair only
//	      "secret": "…"                    32 bytes in base64
//	    }
//	  ]
//	}
//
// A file is of version 2 if it has a staged key, one with which [Ring.Use] began,
// or a retired key of another kind than refresh. Every other file is of version 1,
// as programs from before December 2026 write it. Those programs refuse a file
// of version 2: at start they end, and at a reload they go on with the keys
// that they have.
//
// The kinds of the service's keys:
//
//	discharger   X25519 pair to which homeservers seal caveats
//	refresh      signs refresh tokens
//	store        turns user names into keys of the store; exactly one
//
// and of a homeserver's:
//
//	seal         X25519 pair with which it seals caveats
//	root         master key from which the root keys of access macaroons come
//	api          its key to the service's API, as the text that is sent
//
// # Rings
//
// More than one key of a kind makes a ring, and each key of it is in one state:
//
//	staged    recognized; nothing is made with it
//	used      the one with which things are made
//	previous  recognized; used before
//	retired   taken out; its id stays
//
// [Ring.Add] and [Ring.Stage] put a new key in, [Ring.Use] makes a key the one
// that is used, and [Ring.Retire] takes one out, which ends the sessions that
// depend on it. Of a retired key the id stays: things that were made with it are
// known to be over, whereas those with an unknown id may be from a process that
// has a newer file.
//
// # What it promises
//
// A file that anyone but its owner can read is refused. So is one with a member
// that is unknown or comes twice, a key whose id or public half is not its own,
// a key that comes twice, and a ring without a used key of every kind. A file
// is written beside its place, synced and then moved there: after a crash there
// is the old one or the new one. [Create] never replaces a file, and two
// programs that [Update] one at the same time do so one after the other.
//
// Keys print, log and marshal as REDACTED. Errors do not repeat what is in a
// file.
//
// The keys that sign security events are in a file of their own, whose reader
// is [LoadSigning]: receivers demand RSA, for which every tool reads PEM.
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

// Kind says what a key is for.
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

// Owner says whose keys are in a file.
type Owner string

// The owners.
const (
	Service    Owner = "service"
	Homeserver Owner = "homeserver"
)

// Kinds lists what the owner has keys of, in the order in which they are made.
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

// Ring is what a key file holds. Its methods do not touch the file.
type Ring struct {
	Owner Owner
	Peer  Peer  // who a homeserver's keys are for; zero for the service's
	Keys  []Key // of those of one kind, the first that is not staged is used

	Retired []RetiredKey // in the order in which they were taken out
}

// Peer is what a homeserver has to know, beside its keys, to use the service.
type Peer struct {
	Name       string           // of the homeserver, as the service knows it
	Service    string           // URL of the service
	ServiceKey caveat.PublicKey // of the service
}

// RetiredKey is what stays of a key that is no longer in a ring.
type RetiredKey struct {
	Kind   Kind
	ID     [4]byte          //
	Public caveat.PublicKey // of kinds discharger and seal
}

// State is one of the states of a key; see the package comment.
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

// Add draws a new key, which is used from now on.
func (r *Ring) Add(kind Kind, now time.Time) (Key, error) {
	return r.insert(kind, now, false)
}

// Stage draws a new key, which is recognized but not used yet.
func (r *Ring) Stage(kind Kind, now time.Time) (Key, error) {
	return r.insert(kind, now, true)
}

func (r *Ring) insert(kind Kind, now time.Time, staged bool) (Key, error) {
	if !slices.Contains(r.Owner.Kinds(), kind) {
		return Key{}, fmt.Errorf("add key: a %s has none of kind %q", r.Owner, kind)
	}
	if kind == Store {
		return Key{}, errors.New("add key: there is only one of kind store: with another, no session would be found again")
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

// Use makes a staged or previous key the one that is used, from now on, and
// returns it. The one that was used before is a previous one then. A key that is
// used already stays as it is.
func (r *Ring) Use(id string, now time.Time) (Key, error) {
	k, err := r.Find(id)
	if err != nil {
		return Key{}, err
	}
	if r.StateOf(k) == Used {
		return k, nil
	}
	// Of a previous key too: what the key before it made is from before now.
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
		return Key{}, fmt.Errorf("%w: %q is retired, and its secret is gone", ErrUnknownKey, id)
	}
	return Key{}, fmt.Errorf("%w: %q", ErrUnknownKey, id)
}

// Retire takes a key out and returns it. The one that is used stays.
func (r *Ring) Retire(id string) (Key, error) {
	k, err := r.Find(id)
	if err != nil {
		return Key{}, err
	}
	switch {
	case k.Kind == Store:
		return Key{}, errors.New("retire key: there is only one of kind store: without it, no session would be found again")
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

// RetiredOf returns what stays of the retired keys of one kind.
func (r *Ring) RetiredOf(kind Kind) []RetiredKey {
	var keys []RetiredKey
	for _, k := range r.Retired {
		if k.Kind == kind {
			keys = append(keys, k)
		}
	}
	return keys
}

// Successor returns the key that was used next after a previous one. It reports
// false for a key that is not a previous one.
func (r *Ring) Successor(k Key) (Key, bool) {
	if r.StateOf(k) != Previous {
		return Key{}, false
	}
	keys := r.Of(k.Kind)
	return keys[slices.IndexFunc(keys, func(o Key) bool { return o.ID == k.ID })-1], true
}

// check reports what keeps a ring from being used.
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
			return fmt.Errorf("there are two keys with the id %s", k.ID)
		}
		seen[k.ID] = true
		if k.Staged && !k.Since.IsZero() {
			return fmt.Errorf("key %s is staged, and was used", k.ID)
		}
	}
	for _, kind := range kinds {
		switch keys := r.Of(kind); {
		case len(keys) == 0:
			return fmt.Errorf("there is no key of kind %s", kind)
		case keys[0].Staged:
			return fmt.Errorf("every key of kind %s is staged", kind)
		}
	}
	if len(r.Of(Store)) > 1 {
		return errors.New("there are two keys of kind store")
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
			return fmt.Errorf("retired[%d] has another public key than its id says", i)
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
		return errors.New("name of the homeserver is empty, or longer than 255 bytes")
	}
	if u, err := url.Parse(p.Service); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("service is not an http or https URL")
	}
	if err := caveat.CheckPublicKey(p.ServiceKey); err != nil {
		return fmt.Errorf("service_key: %w", err)
	}
	return nil
}
