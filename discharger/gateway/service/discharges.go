package service

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
)

// Discharges fetches and keeps the discharges of sessions in mode held, whose
// clients know nothing of them.
//
// A discharge is fetched once for everybody who waits for it, and again ahead of
// need when a request comes in the last part of its life, which is long enough
// for a client that only waits for news, and comes every half minute, to come
// once more. So a session in use has one fetched in every life less that part:
// of five minutes, at most 300/265 = 1.13 in a life, and of longer ones, fewer.
// Those of a minute or two, where the part is a quarter, 1.33.
//
// Those who all got one at the same moment, since the service was back or a
// gateway began, must not all come again at the same time. So after a fetch that
// was not ahead of need, the next comes somewhere from half of the life on. That
// happens once: whoever comes ahead of need is spread already, and stays so.
//
// As long as a discharge has not run out it is used, whatever happens to the
// service.
type Discharges struct {
	g        *Client
	Sessions *cache.Cache[caveat.SessionID, *session]
	Tokens   *cache.Cache[string, *Presented]
}

// tokenIdle is how long an entry is kept that is not used. A client that waits for
// news returns every half minute.
const tokenIdle = time.Hour

// VariantsOfSession bounds the tokens of one session that are kept, beside the one
// that its holder narrowed. Others work as well, and are verified every time.
const VariantsOfSession = 8

// TokenHash returns bits of the end of a token, which is the end of a signature.
// The last character holds only some, so it is left out.
func TokenHash(token string) uint64 {
	if len(token) < 3 {
		return 0
	}
	return uint64(token[len(token)-2] ^ token[len(token)-3]<<2)
}

// Presented is an access token that was found to be genuine.
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

// session is one session, whatever tokens its holder made of the one.
type session struct {
	id      caveat.SessionID
	current atomic.Pointer[discharge]

	mu       sync.Mutex
	flight   *call[*discharge] // nil: no fetch is under way
	failure  error             // of the last call; nil: it succeeded
	failures int               // in a row
	next     time.Time         // no fetch before this, after a failure
	sign     uint64            // of the link, at the failure: a later one ends the pause
}

// discharge is a discharge in use. It is not bound to any token yet.
type discharge struct {
	grant   client.Grant
	since   time.Time
	refresh time.Time // from then on, fetch another
	until   time.Time // no longer than this
}

func newDischarges(g *Client) (h *Discharges, err error) {
	const discharge, access = 2 << 10, 1 << 10 // about the size of each
	h = &Discharges{g: g}
	if h.Sessions, err = newCache(g, 10, cache.ByID[caveat.SessionID](tokenIdle, func(*session) int { return discharge })); err != nil {
		return nil, err
	}
	h.Tokens, err = newCache(g, 20, cache.Config[string, *Presented]{
		Idle: tokenIdle, Hash: TokenHash, PerGroup: VariantsOfSession,
		// The token is kept as text, decoded, and in a bundle.
		Size: func(token string, _ *Presented) int { return access + 5*len(token) },
		Group: func(_ string, p *Presented) (session [16]byte, narrowed bool) {
			return p.Identity.Session, p.Attenuated
		},
	})
	return h, err
}

func (h *Discharges) Session(id caveat.SessionID) *session {
	if s, ok := h.Sessions.Get(id); ok {
		return s
	}
	return h.Sessions.GetOrPut(id, func() *session { return &session{id: id} })
}

// Bundle gives a token with a discharge that has not run out.
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

// await gives the session's discharge, and fetches one if it has to. While the
// service decides nothing, it waits.
func (h *Discharges) await(ctx context.Context, t *Presented, who upstream.Origin, wait func() Waiter) (*discharge, error) {
	s, now := h.Session(t.Identity.Session), h.g.cfg.Clock()
	d := s.current.Load()
	if d != nil && now.Before(d.refresh) {
		return d, nil
	}
	needed := d == nil || !now.Before(d.until)
	p, err := h.fetch(s, t, who, now, needed)
	if !needed && s.current.Load() == d {
		return d, nil // the new one comes when it comes
	}
	if err != nil {
		return nil, err
	}
	if !needed && !p.join() {
		return nil, p.lastError() // it was dropped, and the next request fetches another
	}
	return await(ctx, h.g, p, wait())
}

// fetch returns the fetch under way or begins one, unless the last one failed a
// moment ago. It outlives the request that set it off. If a discharge is needed, the
// caller has joined the fetch, and a decision is the only failure.
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
		p.value = d // somebody was faster
		close(p.done)
		return p, nil
	}
	var pause time.Duration
	if s.failure != nil && now.Before(s.next) && (!Undecided(s.failure) || s.sign == h.g.Link.Recovered()) {
		if !needed || !Undecided(s.failure) {
			return nil, s.failure
		}
		p.fail(s.failure)
		pause = min(s.next.Sub(now), h.g.Link.pause(s.failures, nil))
	}
	s.flight = p
	request := client.Request{Access: client.Access{Macaroon: t.Access}, ClientIP: who.Addr, UserAgent: who.UserAgent}
	go func() {
		defer close(p.done)
		p.run(h.g.Link, pause, func(ctx context.Context) (*discharge, error) {
			grant, err := h.g.API.Discharge(ctx, request)
			h.g.cfg.ObserveDischarge("held", err)
			return h.land(s, grant, err)
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.flight == p {
			s.flight = nil
		}
	}()
	return p, nil
}

// land takes over what a call brought.
func (h *Discharges) land(s *session, grant client.Grant, err error) (*discharge, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		d := h.keep(grant, s.inRhythm(h.g.cfg.Clock()))
		s.current.Store(d)
		s.failure, s.failures = nil, 0
		return d, nil
	}
	s.failure, s.next, s.sign = err, h.g.cfg.Clock().Add(h.pause(s.failures, err)), h.g.Link.Recovered()
	s.failures++
	var refused *client.RefusedError
	if errors.As(err, &refused) && refused.Ended {
		s.current.Store(nil)
	}
	return nil, err
}

// inRhythm reports whether a discharge that has just come follows one as it
// should: no fetch failed, and nobody was away for long.
func (s *session) inRhythm(now time.Time) bool {
	d := s.current.Load()
	return d != nil && s.failures == 0 && now.Sub(d.until) < d.until.Sub(d.since)/4
}

// RefreshAhead is how long before a discharge is of no use any more another is
// fetched: the time that homeservers let clients wait for news.
const RefreshAhead = 30 * time.Second

// keep works out how long a discharge is used. If it does not come in rhythm,
// many others may come at the same time.
func (h *Discharges) keep(grant client.Grant, rhythm bool) *discharge {
	now := h.g.cfg.Clock()
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

// pause is how long a failure is an answer to further requests.
func (h *Discharges) pause(failures int, err error) time.Duration {
	var refused *client.RefusedError
	if errors.As(err, &refused) {
		if refused.Ended {
			return time.Hour
		}
		return 5 * time.Second
	}
	var unavailable *client.UnavailableError
	if errors.As(err, &unavailable) && unavailable.RetryAfter > 0 {
		return min(unavailable.RetryAfter, 30*time.Second)
	}
	return min(time.Second<<min(failures, 4), 10*time.Second)
}

// Put notes a discharge that was fetched otherwise: at login.
func (h *Discharges) Put(id caveat.SessionID, grant client.Grant) {
	s := h.Session(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(h.keep(grant, false))
}

// Rebind forgets a discharge that is for another address than the client's, so
// that one for this is asked for. It reports false if the last was fetched a
// moment ago: then two addresses have one token.
func (h *Discharges) Rebind(s *session) bool {
	d := s.current.Load()
	if d != nil && h.g.cfg.Clock().Sub(d.since) < RebindInterval {
		return false
	}
	s.current.CompareAndSwap(d, nil)
	return true
}

const RebindInterval = 10 * time.Second

// Drop forgets the discharge of a session, so that the service is asked.
func (h *Discharges) Drop(id caveat.SessionID) {
	if s, ok := h.Sessions.Get(id); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.current.Store(nil)
		s.failure, s.failures = nil, 0
	}
}

// Margin is how much earlier than it is a client is told that something ends:
// five seconds, or a tenth of what is short.
func Margin(life time.Duration) time.Duration { return min(5*time.Second, life/10) }

// Times are the times of a discharge in use.
type Times struct {
	Since, Refresh, Until time.Time // fetched; to be fetched again; not used from then on
}

// Peek returns the times of a session's discharge, zero if there is none, and a channel
// that is closed when the fetch in progress has ended; nil: there is none.
func (h *Discharges) Peek(id caveat.SessionID) (t Times, fetching <-chan struct{}) {
	s := h.Session(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.current.Load(); d != nil {
		t = Times{Since: d.since, Refresh: d.refresh, Until: d.until}
	}
	if s.flight != nil {
		fetching = s.flight.done
	}
	return t, fetching
}
