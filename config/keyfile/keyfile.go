// Package keyfile keeps secret keys in files: those of the service, and those
// that a homeserver uses with it.
//
// # The format
//
// A key file is one JSON object. Its keys are in no particular order but for
// those of one kind, of which the first is the newest.
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
//	  "retired": ["91c0e0b2"],             ids of refresh keys that were taken out
//	  "keys": [
//	    {
//	      "kind": "discharger",
//	      "id": "5c8e0b5f",                names it, and gives nothing away
//	      "created": "2026-01-02T15:04:05Z",
//	      "public": "…",                   of a key pair only
//	      "secret": "…"                    32 bytes in base64
//	    }
//	  ]
//	}
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
// More than one key of a kind makes a ring: the newest is used to make things,
// all of them to recognize what was made. [Ring.Add] puts a new one first, and
// [Ring.Retire] takes an old one out, which ends whatever was made with it. Of
// a refresh key its id stays: a token signed with it is known to be over, where
// one with an unknown id may be from a process that has a newer file.
//
// # What it promises
//
// A file that anyone but its owner can read is refused. So is one with a member
// that is unknown or comes twice, a key whose id or public half is not its own,
// a key that comes twice, and a ring with nothing in it. A file is written
// beside its place, synced and then moved there: after a crash there is the old
// one or the new one. [Create] never replaces a file, and two programs that
// [Update] one at the same time do so one after the other.
//
// Keys print, log and marshal as REDACTED. Errors do not repeat what is in a
// file.
//
// What security events are signed with is in a file of its own, whose reader
// is [LoadSigning]: receivers demand RSA, in which everybody has tools for PEM.
package keyfile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger"
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
	Keys  []Key // those of one kind newest first

	Retired []RetiredID // of refresh keys, in the order in which they were taken out
}

// Peer is what a homeserver has to know, beside its keys, to use the service.
type Peer struct {
	Name       string           // of the homeserver, as the service knows it
	Service    string           // URL of the service
	ServiceKey caveat.PublicKey // of the service
}

// RetiredID is the id of a key that is no longer in a ring.
type RetiredID [4]byte

// MarshalText returns the id as a key file has it.
func (id RetiredID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText reads what MarshalText returns.
func (id *RetiredID) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(id) || string(text) != hex.EncodeToString(b) {
		return errors.New("is not 8 hexadecimal digits")
	}
	*id = RetiredID(b)
	return nil
}

// NewService makes a ring with one new key of every kind that the service has.
// Random is where they are drawn from; nil is crypto/rand.
func NewService(now time.Time, random io.Reader) (*Ring, error) {
	return (&Ring{Owner: Service}).fill(now, random)
}

// NewHomeserver does the same for a homeserver.
func NewHomeserver(p Peer, now time.Time, random io.Reader) (*Ring, error) {
	return (&Ring{Owner: Homeserver, Peer: p}).fill(now, random)
}

func (r *Ring) fill(now time.Time, random io.Reader) (*Ring, error) {
	for _, kind := range r.Owner.Kinds() {
		if _, err := r.add(kind, now, random); err != nil {
			return nil, err
		}
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("make keys: %w", err)
	}
	return r, nil
}

// Add draws a new key and puts it before the others of its kind.
func (r *Ring) Add(kind Kind, now time.Time, random io.Reader) (Key, error) {
	if !slices.Contains(r.Owner.Kinds(), kind) {
		return Key{}, fmt.Errorf("add key: a %s has none of kind %q", r.Owner, kind)
	}
	if kind == Store {
		return Key{}, errors.New("add key: there is only one of kind store: with another, no session would be found again")
	}
	k, err := r.add(kind, now, random)
	if err != nil {
		return Key{}, err
	}
	if err := r.check(); err != nil {
		return Key{}, fmt.Errorf("add key: %w", err)
	}
	return k, nil
}

func (r *Ring) add(kind Kind, now time.Time, random io.Reader) (Key, error) {
	k, err := newKey(kind, now, random)
	if err != nil {
		return Key{}, fmt.Errorf("add key: %w", err)
	}
	r.Keys = slices.Insert(r.Keys, 0, k)
	return k, nil
}

// Find returns the key with an id. The error matches [ErrUnknownKey].
func (r *Ring) Find(id string) (Key, error) {
	for _, k := range r.Keys {
		if k.ID == id {
			return k, nil
		}
	}
	return Key{}, fmt.Errorf("%w: %q", ErrUnknownKey, id)
}

// Retire takes a key out and returns it. The last of its kind stays.
func (r *Ring) Retire(id string) (Key, error) {
	k, err := r.Find(id)
	if err != nil {
		return Key{}, err
	}
	if len(r.Of(k.Kind)) == 1 {
		return Key{}, fmt.Errorf("retire key: %s is the only one of kind %s; add another first", id, k.Kind)
	}
	r.Keys = slices.DeleteFunc(r.Keys, func(other Key) bool { return other.ID == id })
	if k.Kind == Refresh {
		r.Retired = append(r.Retired, discharger.RefreshKey(k.secret).ID())
	}
	return k, nil
}

// Of returns the keys of one kind, newest first.
func (r *Ring) Of(kind Kind) []Key {
	var keys []Key
	for _, k := range r.Keys {
		if k.Kind == kind {
			keys = append(keys, k)
		}
	}
	return keys
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
	}
	for _, kind := range kinds {
		if len(r.Of(kind)) == 0 {
			return fmt.Errorf("there is no key of kind %s", kind)
		}
	}
	if len(r.Of(Store)) > 1 {
		return errors.New("there are two keys of kind store")
	}
	if r.Owner == Homeserver {
		if len(r.Retired) > 0 {
			return errors.New("retired is of a service's refresh keys only")
		}
		return r.Peer.check()
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
