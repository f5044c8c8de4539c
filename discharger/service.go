// Package discharger is the service that issues discharge macaroons and refuses
// them: the third party of an access macaroon's caveat.
//
// # Steps of a call
//
// Each method of [Service] does the same four things:
//
//	load     open the caveat, verify the refresh token, read the records     operation.go
//	decide   run the state machine of package session, then the policy       decide.go
//	swap     compare and swap the records, or start over if they changed     commit.go
//	mint     make the discharge and the next refresh token                   discharge.go, refreshtoken.go
//
// The state machine of a session is package session, which is pure. The contract of
// a store is package store; to its implementations records are opaque. This package
// has no state except caches: any number of services may share one store.
//
// # Promises
//
// A session that has ended stays ended, and every answer about it agrees with its
// tombstone. An answer that reports an end is returned when the end is as durable as the
// store is configured to make it. Errors are of three kinds: a [*Refusal] is a decision;
// an error that matches [ErrBadRequest] means that the request can never be served; any
// other matches [ErrUnavailable]: the request is undecided, and the client should try
// again. A client may learn only the kind of error, and the fields of a refusal.
//
// # Limits
//
// It never decides by a clock that jumped, by a mark from the future, with an unknown
// key, or without its policy: such requests are undecided. It never takes facts about
// a session from a request, except from the sealed condition. It logs no caveat,
// token or key.
package discharger

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/clientname"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/policy"
)

// Config configures a [Service]. Opener, Store and RefreshKeys are required; the
// zero value of the rest is the documented default.
type Config struct {
	Opener      *caveat.Opener // the service's keys, and the registered homeservers
	Store       store.Store
	RefreshKeys []RefreshKey // the first one mints, all verify

	// RetiredKeys are the ids of removed refresh keys. A token signed with one is
	// refused; with an unknown key it is undecided, since another process may have
	// the key already.
	RetiredKeys [][4]byte

	// Policy decides at activation and refresh; nil: [policy.Allow].
	Policy policy.Evaluator
	// Policies are the names of policies by homeserver, for sessions whose condition
	// names none; missing: "default".
	Policies map[string]string

	TTL    time.Duration  // of a discharge, unless a policy narrows it; 0: 5 min
	MaxTTL time.Duration  // the longest TTL that a policy can choose; 0: 1 h, and never less than TTL
	Limits session.Limits // Activation 0: 10 min, Grace 0: 10 s, Skew 0: 1 min, Remember 0: 90 days

	Observer Observer     // nil: requests are not observed
	Log      *slog.Logger // nil: nothing is logged

	now     func() time.Time
	elapsed func() time.Duration // monotonic; nil: the monotonic reading of now
}

// WithClock returns the configuration with another clock than time.Now.
func (c Config) WithClock(now func() time.Time) Config {
	c.now = now
	return c
}

// Service issues and refuses discharges. Its methods may be called concurrently.
type Service struct {
	cfg       Config
	ring      *tokenRing
	plain     bool // the policy is policy.Allow: not evaluated
	life      revocation.Lifetime
	published *cache.Cache[fact, struct{}]
	clock     *clock
	unknown   map[KeyKind]*rate.Sometimes // limits log lines
	names     *clientname.Cache
}

// Format writes no secret, for every verb.
func (*Service) Format(s fmt.State, _ rune) { io.WriteString(s, "discharger service") }

// New returns a service. It checks the configuration.
func New(cfg Config) (*Service, error) {
	if cfg.Opener == nil || cfg.Store == nil {
		return nil, errors.New("opener or store is missing")
	}
	ring, err := newTokenRing(cfg.RefreshKeys, cfg.RetiredKeys)
	if err != nil {
		return nil, err
	}
	for name, d := range map[string]time.Duration{
		"ttl": cfg.TTL, "max ttl": cfg.MaxTTL, "activation window": cfg.Limits.Activation, "grace": cfg.Limits.Grace,
		"idle": cfg.Limits.Idle, "absolute": cfg.Limits.Absolute, "skew": cfg.Limits.Skew, "remember": cfg.Limits.Remember,
	} {
		if d < 0 {
			return nil, fmt.Errorf("%s is negative", name)
		}
	}
	cfg.complete()
	published, err := newPublished()
	if err != nil {
		return nil, err
	}
	// Any client can send a key id, so log lines about unknown ones are limited.
	unknown := make(map[KeyKind]*rate.Sometimes)
	for _, kind := range []KeyKind{KeyDischarger, KeyHomeserver, KeyRefresh} {
		unknown[kind] = &rate.Sometimes{Interval: time.Second}
	}
	_, plain := cfg.Policy.(policy.Allow)
	return &Service{
		cfg: cfg, ring: ring, plain: plain, life: revocation.Lifetime{MaxTTL: cfg.MaxTTL, Skew: cfg.Limits.Skew}, published: published,
		clock: newClock(cfg.now, cfg.elapsed, cfg.Limits.Skew, cfg.Log), unknown: unknown, names: new(clientname.Cache),
	}, nil
}

func (c *Config) complete() {
	c.TTL = cmp.Or(c.TTL, 5*time.Minute)
	c.MaxTTL = max(cmp.Or(c.MaxTTL, time.Hour), c.TTL)
	c.Limits.Activation = cmp.Or(c.Limits.Activation, 10*time.Minute)
	c.Limits.Grace = cmp.Or(c.Limits.Grace, 10*time.Second)
	c.Limits.Skew = cmp.Or(c.Limits.Skew, time.Minute)
	c.Limits.Remember = cmp.Or(c.Limits.Remember, 90*24*time.Hour)
	if c.Policy == nil {
		c.Policy = policy.Allow{}
	}
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
}

func (s *Service) now() time.Time { return s.cfg.now() }

// Request is a request of a client, or of a homeserver on its behalf.
type Request struct {
	CaveatID     []byte // identifier of the caveat, and of the discharge to be issued
	Caveat       []byte // the sealed caveat; nil: CaveatID is the sealed caveat itself
	RefreshToken []byte // nil: none
	RequestID    string // any text, the same in every retry of one refresh; empty: none

	Addr   netip.Addr // of the peer, if it is known
	Client string     // its User-Agent, whole

	Homeserver string // authenticated by its API key; empty: none

	// OnBehalfOf is the client as Homeserver names it; nil: none. It is ignored
	// unless the session is that homeserver's.
	OnBehalfOf *session.Party
}

// Grant is a discharge, with the refresh token issued beside it.
type Grant struct {
	Discharge    *Discharge
	RefreshToken []byte // mode rotate only: for the next refresh
	Expires      time.Time
	ExpiresIn    time.Duration // from the decision to Expires
	Epoch        uint64        // mode rotate only
	Session      caveat.SessionID
}
