// Package homeserver mints access macaroons and verifies bundles offline. It is
// the package that a homeserver imports.
//
// # Use
//
// At login, [Homeserver.Mint] makes an access macaroon. It grants nothing by
// itself: it carries a third-party caveat, sealed for the discharger, that names
// the session. The client has the caveat discharged, again and again, and sends a
// bundle of access macaroon and discharge to the homeserver. [Homeserver.Verify]
// returns the identity that a bundle proves, and [Middleware] does so for an
// [net/http.Handler]. Neither uses a disk or the network, and no session is stored:
// a homeserver keeps its keys only. [ConfigFromFile] loads them.
//
//	access macaroon                          discharge, bound to it
//	  identifier  who, which session           identifier  that of the caveat
//	  caveat      third-party, ours            caveat      time-before …
//	  caveats     added by its holder          caveat      declared epoch …, in mode rotate
//	  signature                                caveats     added by a policy or its holder
//	                                           signature
//
// # The access macaroon
//
// Its identifier is binary and contains the whole [Identity]:
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
// The payload belongs to the homeserver. Holders can read it, so secrets in it have
// to be encrypted; they cannot change it.
//
// The root key is the HMAC-SHA256 of the identifier, after a label, under the master key.
// So it need not be stored, and no part of the identifier can be changed.
//
// Master keys form a ring, [Keys]: the first mints, all of them verify. Retiring a
// key ends every session minted with it; its id goes into [Config.Retired]. A bundle
// minted with a key in neither is undecided: where several processes mint, one of
// them may have a new key before the others.
//
// # Caveats of holders
//
// A holder of a macaroon can append caveats, and cannot change, remove or reorder any.
// Verify interprets caveats by position. The first caveat of an access macaroon is the
// homeserver's; the first caveats of a discharge are the discharger's, which writes them
// in a fixed order. All further ones can be a holder's, so they only narrow:
//
//	time-before t   refused from t on
//	client-ip a     refused unless the request comes from the address or CIDR
//	declared …      refused: a holder cannot declare facts
//	anything else   decided by [Config.Check]; without one, refused
//
// A third-party caveat added by a holder is refused, and so is more than one
// discharge. Whether an epoch is declared follows from the mode in the identifier,
// so a holder cannot add one in the other modes.
//
// # Revocation
//
// By themselves, bundles are accepted until their discharge expires, even if the
// session has ended. With a [Feed] as [Config.Revocations], which follows the
// discharger's revocations, Verify refuses them at once, and still does no I/O.
// [Feed] documents the case of an unreachable discharger.
// The API key that a feed needs is in the same key file as the other keys:
//
//	cfg, err := homeserver.ConfigFromFile(path, keyfile.OwnerOnly)
//	ring, err := keyfile.Load(path, keyfile.OwnerOnly)
//	c, err := client.New(client.Config{URL: ring.Peer.Service, APIKey: ring.Of(keyfile.API)[0].APIKey()})
//	feed, err := homeserver.NewFeed(homeserver.FeedConfig{Client: c})
//	cfg.Revocations = feed
//	hs, err := homeserver.New(cfg)
//	go feed.Run(ctx)
//
// # Guarantees
//
// Verify accepts exactly the bundles that the macaroon library accepts for the same root
// key, except those that the rules above refuse and those that are not in canonical
// encoding. The package's own code for it takes a fifth of the memory; tests compare the
// two. A verified bundle is cached by its text: its signatures are not computed again,
// while time, address, Check and revocations are checked every time.
//
// It never panics on any input, and the cost of hostile input is bounded by the size of a
// bundle. No error and no method shows a key or a signature; keys print as REDACTED.
package homeserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// Config configures a [Homeserver]. Keys, KeyPair, Discharger and Location are
// required; [ConfigFromFile] sets them.
type Config struct {
	// Name is the homeserver's name. It is the location of access macaroons, a
	// hint for people. Empty: none.
	Name string
	// Keys are the master keys; the first is the newest and mints.
	Keys Keys
	// Retired are the ids of master keys that were retired; see [Key.ID].
	Retired [][4]byte
	// KeyPair seals caveats. The discharger identifies the homeserver by its public key.
	KeyPair caveat.KeyPair
	// Discharger is the discharger's public key, to which caveats are sealed.
	Discharger caveat.PublicKey
	// Location is the discharger's URL. Clients find the caveat by it.
	Location string
	// Check decides about a condition that this package does not define. It returns nil
	// if the condition is known and holds, an error that matches ErrUnknownCaveat if it
	// is unknown or ErrUndecided if a failure prevents the decision, and any other error
	// if it does not hold. Any holder can have added the condition, so it can restrict a
	// request and must not be taken as information. Nil: every such condition is unknown.
	Check func(ctx context.Context, c Caveat) error
	// Revocations is consulted last, for every bundle that is otherwise valid; a
	// [Feed] is one. Nil: no bundle is refused before it expires.
	Revocations Revocations
	// Leeway is how long a time-before still holds after its time, for clocks that
	// differ. 0: not at all.
	Leeway time.Duration
	// MaxConditions is how many conditions a holder may have added to an access macaroon.
	// One with more is malformed. 0: 16; below 0: as many as a bundle can have.
	MaxConditions int
	// MaxCondition is how many bytes such a condition may have. 0: 512; below 0:
	// as many as a bundle can have.
	MaxCondition int
	// CacheBytes bounds the memory of the cache of verified bundles. A bundle takes
	// 1 to 3 KB, and is evicted when it was not used for ten minutes. Of one
	// session, at most 8 bundles are cached that its holder may have narrowed. 0:
	// 16 MiB; below 0: no cache.
	CacheBytes int

	now func() time.Time // set by WithClock; nil: time.Now
}

// WithClock returns a copy of the configuration in which now returns the time. It is
// for simulations, which turn time forward.
func (c Config) WithClock(now func() time.Time) Config {
	c.now = now
	return c
}

// Caveat is a condition for [Config.Check], and where it was found.
type Caveat struct {
	Condition string   // as the holder wrote it
	Part      Part     // the macaroon that has it
	Identity  Identity // of the bundle; its signatures are verified
	Request   Request  // as passed to Verify
}

// Revocations reports which bundles are refused before they expire.
type Revocations interface {
	// Revoked reports whether bundles with this identity are refused. It is
	// called on every verification, concurrently, and must not block.
	Revoked(Identity) bool
}

// RevocationKinds is implemented by [Revocations] that record how sessions ended.
type RevocationKinds interface {
	// RevokedKind reports whether bundles with this identity are refused, and
	// whether the end is soft: the client logs in again and keeps its encryption
	// keys. It is called instead of Revoked.
	RevokedKind(Identity) (soft, revoked bool)
}

// Freshness is implemented by [Revocations] that can be out of date.
type Freshness interface {
	// Undecided returns why bundles that are not known to be revoked cannot be
	// decided, or nil. Verify then fails with ErrUndecided. It is
	// called on every verification, concurrently, and must not block.
	Undecided() error
}

// Homeserver mints access macaroons and verifies bundles. Only [Homeserver.Reload]
// changes it. It is safe for concurrent use.
type Homeserver struct {
	cfg       Config // its keys are those of New; ring has the current ones
	ring      *atomic.Pointer[ring]
	freshness Freshness       // cfg.Revocations, if it implements it
	kinds     RevocationKinds // likewise
}

const (
	defaultCacheBytes    = 16 << 20
	defaultMaxConditions = 16
	defaultMaxCondition  = 512
)

func (c *Config) setDefaults() {
	if c.now == nil {
		c.now = time.Now
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

// New returns a Homeserver. The error matches [caveat.ErrWeakKey] for a discharger's
// key that protects nothing.
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

// Format writes the name and no secret, for every verb.
func (h Homeserver) Format(s fmt.State, _ rune) { io.WriteString(s, "homeserver "+h.cfg.Name) }
