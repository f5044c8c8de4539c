package service

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
)

// Discharges fetches and caches the discharges of sessions in mode held.
//
// Concurrent requests of a session share one fetch. A request in the last part of a
// discharge's lifetime fetches the next one ahead of need. That part is long enough for
// a client in a long poll to return once. So the fetches per lifetime of a session in
// use are at most 300/265 = 1.13 for a lifetime of five minutes, fewer for a longer one,
// and 1.33 for one of up to two minutes.
//
// Many discharges that were fetched at the same moment, after an outage or the start of
// a gateway, must not be fetched again at the same moment. So after a fetch that was
// not ahead of need, the next one is due at a random time in the second half of the
// lifetime. Fetches ahead of need are spread already.
//
// A discharge that has not expired is used in any case.
type Discharges struct {
	g        *Client
	Sessions *cache.Cache[caveat.SessionID, *session]
	Tokens   *cache.Cache[string, *Presented] // by the text of the access token
}

// tokenIdle is how long an unused entry is cached. A client in a long poll returns
// every half minute.
const tokenIdle = time.Hour

// VariantsOfSession bounds the cached narrowed tokens of one session. Other tokens of
// it are verified at every request.
const VariantsOfSession = 8

// TokenHash returns bits of the end of a token, which are bits of a signature. The last
// character has fewer than six bits and is left out.
func TokenHash(token string) uint64 {
	if len(token) < 3 {
		return 0
	}
	return uint64(token[len(token)-2] ^ token[len(token)-3]<<2)
}

// Presented is a verified access token.
type Presented struct {
	Identity   homeserver.Identity
	Access     *macaroon.Macaroon
	Attenuated bool
	bundle     atomic.Pointer[boundBundle]
}

// boundBundle is a token with a discharge.
type boundBundle struct {
	of   *discharge
	text string
}

// session is one session with all narrowed tokens of it.
type session struct {
	id      caveat.SessionID
	current atomic.Pointer[discharge]

	mu         sync.Mutex
	flight     *call[*discharge]           // nil: no fetch in progress
	failure    error                       // of the last fetch; nil: it succeeded
	pauses     *backoff.ExponentialBackOff // since the first failure in a row
	next       time.Time                   // no fetch before this, after a failure
	recoveries uint64                      // of the link at the failure; a later one ends the pause
}

// discharge is a discharge in use. It is not bound to a token.
type discharge struct {
	grant   client.Grant
	since   time.Time
	refresh time.Time // another is fetched from then on
	until   time.Time // not used from then on
}

func newDischarges(g *Client) (h *Discharges, err error) {
	const discharge, access = 2 << 10, 1 << 10 // about the size of each
	h = &Discharges{g: g}
	if h.Sessions, err = cache.NewShared(g.cfg.Caches, 10, cache.ByID[caveat.SessionID](tokenIdle, func(*session) int { return discharge })); err != nil {
		return nil, err
	}
	h.Tokens, err = cache.NewShared(g.cfg.Caches, 20, cache.Config[string, *Presented]{
		Idle: tokenIdle, Hash: TokenHash, PerGroup: VariantsOfSession,
		// Text, macaroon and bundle hold the token.
		Size: func(token string, _ *Presented) int { return access + 5*len(token) },
		Group: func(_ string, p *Presented) (session [16]byte, narrowed bool) {
			return p.Identity.Session, p.Attenuated
		},
	})
	return h, err
}

// Session returns the entry of a session, and makes it if there is none.
func (h *Discharges) Session(id caveat.SessionID) *session {
	if s, ok := h.Sessions.Get(id); ok {
		return s
	}
	return h.Sessions.GetOrPut(id, func() *session { return &session{id: id} })
}

// Bundle returns a token with a discharge that has not expired.
func (h *Discharges) Bundle(ctx context.Context, t *Presented, who upstream.Origin, wait func() Waiter) (string, error) {
	d, err := h.await(ctx, t, who, wait)
	if err != nil {
		return "", err
	}
	if b := t.bundle.Load(); b != nil && b.of == d {
		return b.text, nil
	}
	bound := d.grant.Discharge.Clone()
	bound.Bind(t.Access.Signature())
	text, err := bundle.Encode(macaroon.Slice{t.Access, bound})
	if err != nil {
		return "", err
	}
	t.bundle.Store(&boundBundle{of: d, text: text})
	return text, nil
}

// await returns the session's discharge, and fetches one if necessary. It waits while
// the service does not decide.
func (h *Discharges) await(ctx context.Context, t *Presented, who upstream.Origin, wait func() Waiter) (*discharge, error) {
	s, now := h.Session(t.Identity.Session), h.g.cfg.Clock()
	d := s.current.Load()
	if d != nil && now.Before(d.refresh) {
		return d, nil
	}
	needed := d == nil || !now.Before(d.until)
	p, err := h.fetch(s, t, who, now, needed)
	if !needed && s.current.Load() == d {
		return d, nil // the fetch in progress is for later requests
	}
	if err != nil {
		return nil, err
	}
	if !needed && !p.join() {
		return nil, p.lastError() // dropped meanwhile; the next request fetches another
	}
	return await(ctx, h.g, p, wait())
}

// fetch returns the fetch in progress or starts one, unless the last one has just
// failed. The fetch outlives the request. If a discharge is needed, fetch joins it, and
// the only error is a refusal.
func (h *Discharges) fetch(s *session, t *Presented, who upstream.Origin, now time.Time, needed bool) (*call[*discharge], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil && (!needed || s.flight.join()) {
		return s.flight, nil
	}
	p := newCall[*discharge]()
	if needed {
		p.join()
	}
	if d := s.current.Load(); d != nil && now.Before(d.refresh) {
		p.value = d // fetched meanwhile
		close(p.done)
		return p, nil
	}
	var pause time.Duration
	if s.failure != nil && now.Before(s.next) && (!Undecided(s.failure) || s.recoveries == h.g.Link.Recovered()) {
		if !needed || !Undecided(s.failure) {
			return nil, s.failure
		}
		p.fail(s.failure)
		pause = min(s.next.Sub(now), MaxRetryInterval)
	}
	s.flight = p
	request := client.Request{Access: client.Access{Macaroon: t.Access}, ClientIP: who.Addr, UserAgent: who.UserAgent}
	go func() {
		defer close(p.done)
		p.run(h.g.Link, pause, func(ctx context.Context) (*discharge, error) {
			started := h.g.cfg.Clock()
			grant, err := h.g.API.Discharge(ctx, request)
			h.g.cfg.ObserveDischarge("held", err)
			return h.land(s, grant, started, err)
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.flight == p {
			s.flight = nil
		}
	}()
	return p, nil
}

// land records the result of a fetch.
func (h *Discharges) land(s *session, grant client.Grant, started time.Time, err error) (*discharge, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		d := h.keep(grant, started, s.inRhythm(started))
		s.current.Store(d)
		s.failure = nil
		return d, nil
	}
	if s.failure == nil {
		s.pauses = newPauses(time.Second, maxRetryAfter)
	}
	pause := pauseAfter(s.pauses, err)
	var refused *client.RefusedError
	switch {
	case !errors.As(err, &refused):
	case refused.Ended:
		pause = time.Hour
		s.current.Store(nil)
	default:
		pause = 5 * time.Second
	}
	s.failure, s.next, s.recoveries = err, h.g.cfg.Clock().Add(pause), h.g.Link.Recovered()
	return nil, err
}

// inRhythm reports whether a fetched discharge follows another without a failure and
// without a long pause.
func (s *session) inRhythm(now time.Time) bool {
	d := s.current.Load()
	return d != nil && s.failure == nil && now.Sub(d.until) < d.until.Sub(d.since)/4
}

// RefreshAhead is how long before its end a discharge is replaced: the usual duration
// of a long poll.
const RefreshAhead = 30 * time.Second

// keep returns a discharge with the times of its use, counted from the start of its
// fetch. Without rhythm, the time of the next fetch is random.
func (h *Discharges) keep(grant client.Grant, now time.Time, rhythm bool) *discharge {
	life := grant.Remaining()
	refresh := life - min(RefreshAhead+Margin(life), life/4)
	if !rhythm {
		refresh = life/2 + time.Duration(h.g.cfg.Jitter()*float64(refresh-life/2))
	}
	return &discharge{
		grant:   grant,
		since:   now,
		refresh: now.Add(refresh),
		until:   now.Add(life - Margin(life)),
	}
}

// Put caches the discharge of a login.
func (h *Discharges) Put(id caveat.SessionID, grant client.Grant) {
	s := h.Session(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(h.keep(grant, h.g.cfg.Clock(), false))
}

// Rebind drops a discharge for another address than the client's, so that the next
// request fetches one. It returns false if the discharge is younger than
// [RebindInterval], since clients at two addresses use the token then.
func (h *Discharges) Rebind(s *session) bool {
	d := s.current.Load()
	if d != nil && h.g.cfg.Clock().Sub(d.since) < RebindInterval {
		return false
	}
	s.current.CompareAndSwap(d, nil)
	return true
}

// RebindInterval is the shortest time between two discharges for different addresses.
const RebindInterval = 10 * time.Second

// Drop drops the discharge of a session, so that the next request fetches one.
func (h *Discharges) Drop(id caveat.SessionID) {
	if s, ok := h.Sessions.Get(id); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.current.Store(nil)
		s.failure = nil
	}
}

// Margin returns the safety margin before the end of a lifetime: five seconds, or a
// tenth of a short one.
func Margin(life time.Duration) time.Duration { return min(5*time.Second, life/10) }
