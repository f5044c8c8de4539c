// Package homeserver is what a homeserver imports to hand out access macaroons
// and to recognize its users by them, without asking anybody.
//
// # What it does
//
// At login, [Homeserver.Mint] makes an access macaroon. It is good for nothing
// by itself: it carries a third-party caveat, sealed for the discharger, that
// names the session. The client has it discharged there, again and again, and
// sends a bundle of both to the homeserver. [Homeserver.Verify] says whose it
// is. Neither touches a disk or the network, and nothing is kept about a
// session: a homeserver has its keys, and that is all.
//
//	access macaroon                          discharge, bound to it
//	  identifier  who, which session           identifier  that of the caveat
//	  caveat      third-party, ours            caveat      time-before …
//	  caveats     what its holder added        caveat      declared epoch …, in mode rotate
//	  signature                                caveats     what a policy or its holder added
//	                                           signature
//
// # The access macaroon
//
// Its identifier is binary and says everything that Verify tells:
//
//	0   01 or 02  version: 02 has a payload
//	1   mode      open 1, rotate 2, held 3        1 byte
//	2   key id    which master key                4 bytes
//	6   session   random                         16 bytes
//	22  minted    Unix time in ms, big-endian     6 bytes
//	28  user      uvarint length, and as many bytes
//	    device    uvarint length, and as many bytes
//	    payload   uvarint length, and as many bytes; in version 02 only
//
// The payload is the homeserver's own. Whoever holds the macaroon can read it,
// so what is secret in it has to be encrypted; nobody can change it.
//
// The root key is the HMAC-SHA256 of the identifier, after a label, under the
// master key. So it need not be stored, and no part of the identifier can be
// changed by anyone.
//
// Master keys are a ring, [Keys]: the first mints, all of them verify. A key that
// is retired ends every session minted with it; its id goes into [Config.Retired].
// About bundles that were minted with a key in neither, nothing is decided: where
// several processes mint, one of them may have a new key before the others.
//
// # What a holder can do
//
// Whoever holds a macaroon can append caveats to it, and nothing else: what is
// there cannot be changed, removed or reordered. Verify reads it accordingly.
// The first caveat of an access macaroon is the homeserver's, since it gives
// out none without; the first caveats of a discharge are the discharger's,
// since it writes them in a fixed order. Everything after that can come from
// anyone, so it can only ever narrow:
//
//	time-before t   refused from t on
//	client-ip a     refused unless the request comes from the address or CIDR
//	declared …      refused: a fact stated by a holder is no fact
//	anything else   [Config.Check] decides; without one, refused
//
// A third-party caveat that a holder added is refused, and so is every discharge
// beyond the one that is due. Whether an epoch is declared is known from the
// mode in the identifier, so in the other modes none can be made up.
//
// A client-ip condition is met by the address that [Request] says. The rest of
// a chain of proxies is the caller's to see through.
//
// # What was revoked
//
// By themselves, bundles are good until their discharge runs out, whatever
// became of the session. A [Feed] as [Config.Revocations] follows what the
// service revokes, and Verify refuses it at once; it still asks nobody. What
// happens when the feed cannot be heard is said there.
//
// # What it promises
//
// Verify accepts exactly what the macaroon library accepts for the same root
// key, minus what the rules above refuse, and what is not in its canonical
// encoding. Its own code for that takes a fifth of the memory and none of the
// reflection; tests compare the two. A bundle that was verified before is
// recognized by its text. Its signatures are not computed again, but time,
// address, Check and revocations are looked at every time.
//
// It never panics on any input, and what it spends on hostile input is bounded
// by the size of a bundle. No error and no method shows a key or a signature;
// keys print as REDACTED.
package homeserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// Config is what a [Homeserver] is made from. Keys, KeyPair, Discharger and
// Location are required.
type Config struct {
	// Name is the homeserver's name. It goes into access macaroons as their
	// location, which is a hint for people and no more. Empty: none.
	Name string
	// Keys are the master keys; the first is the newest and mints.
	Keys Keys
	// Retired are the ids of master keys that were taken out of Keys; see [Key.ID].
	Retired [][4]byte
	// KeyPair seals caveats. The discharger knows the homeserver by its public
	// key.
	KeyPair caveat.KeyPair
	// Discharger is the service's public key, to which caveats are sealed.
	Discharger caveat.PublicKey
	// Location is the service's URL. Clients look for the caveat by it.
	Location string
	// Check decides about a condition that this package does not know. It
	// returns nil if the condition is understood and holds, and an error
	// otherwise; ErrUnknownCaveat for one that it does not know either. Any
	// holder can have added the condition, so it must not be taken as
	// information, only as a further restriction. Nil: all such are refused.
	Check func(ctx context.Context, condition string) error
	// Revocations is asked last, about every bundle that is otherwise in
	// order; a [Feed] is one. Nil: nothing is revoked before it expires.
	Revocations Revocations
	// Leeway is for how long after its time a time-before still holds, for
	// clocks that differ. 0: not at all.
	Leeway time.Duration
	// MaxConditions is how many conditions a holder may have added to an access
	// macaroon. One with more is malformed. 0: 16; below 0: as many as a bundle
	// can have.
	MaxConditions int
	// MaxCondition is how many bytes such a condition may have. 0: 512; below 0:
	// as many as a bundle can have.
	MaxCondition int
	// CacheBytes is how much memory verified bundles take that are remembered.
	// One takes 1 to 3 KB, and is forgotten when it was not used for ten minutes.
	// Of one session, at most 8 bundles are remembered that its holder may have
	// narrowed. 0: 16 MiB; below 0: none are remembered.
	CacheBytes int
	// Clock tells the time. Nil: time.Now.
	Clock func() time.Time
	// Rand is where session ids, root keys and nonces are drawn from. Nil:
	// crypto/rand. The nonce by which the homeserver itself finds the root key
	// again is always crypto/rand's.
	Rand io.Reader
}

// Revocations knows which bundles are refused before they expire.
type Revocations interface {
	// Revoked reports whether bundles with this identity are refused. It is
	// called on every verification, concurrently, and must not block.
	Revoked(Identity) bool
}

// RevocationKinds is implemented by a [Revocations] that knows how sessions
// ended.
type RevocationKinds interface {
	// RevokedKind reports whether bundles with this identity are refused, and
	// if so whether the end is soft: the client logs in again and keeps its
	// encryption keys. It is called instead of Revoked.
	RevokedKind(Identity) (soft, revoked bool)
}

// Freshness is what a [Revocations] has too if there are times at which it
// cannot know what is revoked.
type Freshness interface {
	// Undecided returns why nothing can be said about bundles that are not
	// known to be revoked, or nil. Verify then fails with ErrUndecided. It is
	// called on every verification, concurrently, and must not block.
	Undecided() error
}

// Homeserver mints access macaroons and verifies bundles. It changes only by
// [Homeserver.Reload], and may be used concurrently if its Rand may.
type Homeserver struct {
	cfg       Config // its keys are those of New; ring has the current ones
	ring      *atomic.Pointer[ring]
	freshness Freshness       // of cfg.Revocations; nil: it has none
	kinds     RevocationKinds // likewise
}

const (
	defaultCacheBytes    = 16 << 20
	defaultMaxConditions = 16
	defaultMaxCondition  = 512
)

func (c *Config) setDefaults() {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = defaultCacheBytes
	}
	if c.MaxConditions == 0 {
		c.MaxConditions = defaultMaxConditions
	}
	if c.MaxCondition == 0 {
		c.MaxCondition = defaultMaxCondition
	}
}

// New checks a configuration and makes a Homeserver. The error matches
// [caveat.ErrWeakKey] for a discharger's key that would protect nothing.
func New(cfg Config) (*Homeserver, error) {
	if u, err := url.Parse(cfg.Location); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("new homeserver: location %q is not an http or https URL", cfg.Location)
	}
	if cfg.Leeway < 0 {
		return nil, errors.New("new homeserver: leeway is negative")
	}
	cfg.setDefaults()
	r, err := newRing(&cfg)
	if err != nil {
		return nil, fmt.Errorf("new homeserver: %w", err)
	}
	h := &Homeserver{cfg: cfg, ring: new(atomic.Pointer[ring])}
	h.ring.Store(r)
	h.freshness, _ = cfg.Revocations.(Freshness)
	h.kinds, _ = cfg.Revocations.(RevocationKinds)
	return h, nil
}

// Format writes the name and no secret, whatever the verb.
func (h Homeserver) Format(s fmt.State, _ rune) { io.WriteString(s, "homeserver "+h.cfg.Name) }
