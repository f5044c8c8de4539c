package discharger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/clientname"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/policy"
)

// Config is what a [Service] needs. Opener, Store and RefreshKeys are
// required; the zero value of the rest is the documented default.
type Config struct {
	Opener      *caveat.Opener // our keys, and the registered homeservers
	Store       store.Store
	RefreshKeys []RefreshKey // the first one mints, all verify

	// RetiredKeys are the ids of refresh keys that were taken out. A token
	// signed with one is refused; with a key that is not known at all, nothing
	// is decided, since another process may have been given it already.
	RetiredKeys [][4]byte

	// Policy decides at activation and refresh; nil is [policy.Allow].
	Policy policy.Evaluator
	// Policies names the policy of each homeserver for sessions whose
	// condition names none; missing is "default".
	Policies map[string]string

	TTL    time.Duration  // of a discharge, unless a policy says otherwise; 0: 5 min
	MaxTTL time.Duration  // the longest a policy may make it; 0: 1 h, and never less than TTL
	Limits session.Limits // Activation 0: 10 min, Grace 0: 10 s, Skew 0: 1 min, Remember 0: 90 days

	Observer Observer         // nil: nobody
	Log      *slog.Logger     // nil: nothing is logged
	Now      func() time.Time // nil: time.Now

	elapsed func() time.Duration // by the monotonic clock; nil: that in what Now returns
}

// Service issues and refuses discharges. Its methods may be called
// concurrently, and any number of services may share one store.
//
// Errors are of three kinds, and nothing else may be told to a client: a
// [*Refusal] is a decision; an error that matches [ErrBadRequest] means that
// the request can never be served; any other matches [ErrUnavailable] and
// means that nothing was decided and the client should try again.
type Service struct {
	cfg       Config
	ring      *tokenRing
	plain     bool // the policy is policy.Allow: it need not be asked
	announcer Announcer
	announced *cache.Cache[announcement, struct{}]
	clock     *clock
	unknown   map[KeyKind]*rate.Sometimes // limits log lines
	names     *clientname.Cache
}

// New checks the configuration and returns a service.
func New(cfg Config) (*Service, error) {
	if cfg.Opener == nil || cfg.Store == nil {
		return nil, errors.New("a service needs an opener of caveats and a store")
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
	cfg.TTL = orDefault(cfg.TTL, 5*time.Minute)
	cfg.MaxTTL = max(orDefault(cfg.MaxTTL, defaultMaxTTL), cfg.TTL)
	cfg.Limits.Activation = orDefault(cfg.Limits.Activation, 10*time.Minute)
	cfg.Limits.Grace = orDefault(cfg.Limits.Grace, 10*time.Second)
	cfg.Limits.Skew = orDefault(cfg.Limits.Skew, defaultSkew)
	cfg.Limits.Remember = orDefault(cfg.Limits.Remember, defaultRemember)
	if cfg.Policy == nil {
		cfg.Policy = policy.Allow{}
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	announced, err := newAnnounced()
	if err != nil {
		return nil, err
	}
	watch := newClock(cfg.Now, cfg.elapsed, cfg.Limits.Skew, cfg.Log)
	cfg.Now = watch.wall
	_, plain := cfg.Policy.(policy.Allow)
	announcer := Announcer{MaxTTL: cfg.MaxTTL, Skew: cfg.Limits.Skew}
	return &Service{
		cfg: cfg, ring: ring, plain: plain, announcer: announcer, announced: announced, clock: watch, unknown: newUnknown(),
		names: new(clientname.Cache),
	}, nil
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// Of [Config] and [session.Limits].
const (
	defaultMaxTTL   = time.Hour
	defaultSkew     = time.Minute
	defaultRemember = 90 * 24 * time.Hour
)

// Request is what a client, or a homeserver on its behalf, presents.
type Request struct {
	ID           []byte // identifier that the discharge shall have
	Caveat       []byte // the sealed caveat; nil: ID is the sealed caveat itself
	RefreshToken []byte // nil: none
	RequestID    string // any text, the same for every attempt of one refresh; "": none

	Addr   netip.Addr // of the peer, as far as it is known
	Client string     // its User-Agent, whole

	// Homeserver is the name of the homeserver that authenticated itself
	// with its API key; "": none did.
	Homeserver string
	// OnBehalfOf is the homeserver's client, as the homeserver names it; nil:
	// it names none. It counts only if the session is that homeserver's.
	OnBehalfOf *session.Party
}

// Grant is a discharge and what goes with it.
type Grant struct {
	Discharge    *Discharge
	RefreshToken []byte // mode rotate only: what the next refresh must present
	Expires      time.Time
	ExpiresIn    time.Duration // the same, from the moment that the service decided
	Epoch        uint64        // mode rotate only
	Session      caveat.SessionID
}

// maxRetries bounds how often a lost race is started over by a discharge, and by
// what ends all sessions of a homeserver, which races only with its like. One of
// the contenders wins each round, and most of the others then have nothing left
// to write.
const maxRetries = 32

// maxRevokeRetries bounds the same for what ends a user's sessions. That always
// has something to write, and loses to whoever refreshes between its reading and
// its writing, which may go on for as long as it does. It is not to be the one
// who gives up before its context ends; this is for a context that never does.
const maxRevokeRetries = 1024

// Discharge issues a discharge, or says why not.
func (s *Service) Discharge(ctx context.Context, req *Request) (*Grant, error) {
	a, err := s.begin(OpDischarge, req)
	var g *Grant
	if err == nil {
		g, err = s.discharge(ctx, a)
	}
	return g, s.finish(ctx, a, err)
}

func (s *Service) discharge(ctx context.Context, a *attempt) (*Grant, error) {
	for range maxRetries {
		state, view, err := s.load(ctx, a)
		if err != nil {
			return nil, err
		}
		ruling, err := s.decide(ctx, a, &state)
		if err != nil {
			return nil, err
		}
		done, err := s.store(ctx, a, &ruling, state, view)
		if err != nil {
			return nil, err
		}
		if !done {
			a.obs.Retries++
			continue
		}
		if a.obs.LostWrite = ruling.LostWrite; ruling.LostWrite {
			s.cfg.Log.LogAttrs(ctx, slog.LevelError, "store lost a write: refresh token is newer than its session",
				a.attrs(slog.Uint64("epoch", a.event.Token.Epoch))...)
		}
		if ruling.Reason != "" {
			return nil, refusal(&ruling)
		}
		return s.grant(a, &ruling), nil
	}
	return nil, errContention
}

// store makes the outcome true. It reports false if the records have changed
// since they were read.
func (s *Service) store(ctx context.Context, a *attempt, r *session.Ruling, st session.State, v store.View) (bool, error) {
	if done, err := s.evict(ctx, a); err != nil || !done {
		return false, err
	}
	ed, err := s.editOf(a, r, v)
	if err != nil {
		return false, unavailable(err)
	}
	if len(ed.changes) == 0 && a.event.Kind != session.EventDischarge {
		if ed, err = s.repeat(a, st, v); err != nil {
			return false, unavailable(err)
		}
	}
	switch {
	case len(ed.changes) > 0:
	case r.Ended:
		return true, s.announce(ctx, a.user.Homeserver, s.again(a, st))
	default: // a client that learns nothing of the session must not see it in how long it takes
		return true, nil
	}
	ok, err := s.swap(ctx, a, ed)
	if err != nil && r.Touch {
		s.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "session's last use could not be stored", a.attrs(slog.Any("error", err))...)
		return true, nil
	}
	return ok, err
}

// editOf returns the edit that makes a ruling true.
func (s *Service) editOf(a *attempt, r *session.Ruling, v store.View) (ed edit, err error) {
	if r.Next != nil {
		if err := s.changeSession(&ed, a, a.cond.Session, v.Session, r.Next, a.cond.Minted); err != nil {
			return edit{}, err
		}
	}
	if r.NextDevice != nil {
		if err := s.changeDevice(&ed, a, v.Device, r.NextDevice); err != nil {
			return edit{}, err
		}
		for _, o := range a.onDevice {
			if !slices.Contains(r.Replaces, o.id) {
				continue
			}
			if err := s.end(&ed, a, o, revocation.End{Soft: true, Cause: revocation.CauseReplaced, At: a.event.Now}); err != nil {
				return edit{}, err
			}
		}
		s.dropDevices(&ed, a)
	}
	if r.NextUser != nil {
		if err := s.changeUser(&ed, a.user, v, r.NextUser); err != nil {
			return edit{}, err
		}
		ed.revoked[len(ed.revoked)-1].cause = r.End.Cause // the record has it only as far as answers need it
	}
	return ed, nil
}

// evict ends the sessions beyond a policy's limit. That comes first, in a
// write of its own: if it has to be done over, the activation has not happened
// yet, so the policy is asked again and finds what is left to announce.
func (s *Service) evict(ctx context.Context, a *attempt) (bool, error) {
	if len(a.evict.changes) == 0 {
		return true, s.announce(ctx, a.user.Homeserver, a.evict.revoked)
	}
	return s.swap(ctx, a, a.evict)
}

// grant mints what the ruling allows.
func (s *Service) grant(a *attempt, r *session.Ruling) *Grant {
	expires := a.now.Add(r.TTL).Truncate(time.Millisecond)
	conditions := make([]string, 0, 2+len(r.Caveats))
	conditions = append(conditions, standard(a.opened.StdPrefix, rawmacaroon.TimeBefore(expires)))
	g := &Grant{Expires: expires, ExpiresIn: expires.Sub(a.now), Session: a.cond.Session}
	if r.Issue != nil {
		g.Epoch = r.Issue.Epoch
		conditions = append(conditions, standard(a.opened.StdPrefix, rawmacaroon.Epoch(g.Epoch)))
		g.RefreshToken = s.ring.Mint(a.opened.Homeserver, a.cond.Session, *r.Issue, a.extra)
	}
	for _, c := range a.extra { // a discharge is as narrow as the token it was exchanged for
		if name, _ := rawmacaroon.CutCondition(c); name == rawmacaroon.CondClientIP {
			conditions = append(conditions, c)
		}
	}
	g.Discharge = mint(&a.opened, a.id, append(conditions, r.Caveats...))
	return g
}
