package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
)

// heldSessions fetches and keeps the discharges of sessions in mode held, whose
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
type heldSessions struct {
	g        *Gateway
	sessions *recent[caveat.SessionID, *heldSession]
	tokens   *recent[string, *presented]
}

// presented is an access token that was found to be genuine.
type presented struct {
	identity homeserver.Identity
	access   *macaroon.Macaroon
	narrowed bool
	bundle   atomic.Pointer[boundBundle]
}

// boundBundle is a token with a discharge.
type boundBundle struct {
	of   *discharged
	text string
}

// heldSession is one session, whatever tokens its holder made of the one.
type heldSession struct {
	id      caveat.SessionID
	current atomic.Pointer[discharged]

	mu       sync.Mutex
	flight   *pursuit[*discharged] // nil: no fetch is under way
	failure  error                 // of the last call; nil: it succeeded
	failures int                   // in a row
	next     time.Time             // no fetch before this, after a failure
	sign     uint64                // of the link, at the failure: a later one ends the pause
}

// discharged is a discharge in use. It is not bound to any token yet.
type discharged struct {
	grant   client.Grant
	since   time.Time
	refresh time.Time // from then on, fetch another
	until   time.Time // no longer than this
}

// forWhom says on whose behalf a discharge is asked for.
type forWhom struct {
	addr      netip.Addr
	userAgent string
}

// set writes who it is into the headers of a request to the homeserver.
func (w forWhom) set(h http.Header) {
	if w.addr.IsValid() {
		h[headerFor] = []string{w.addr.String()}
		h[headerRealIP] = []string{w.addr.String()}
	}
	if w.userAgent != "" {
		h.Set("User-Agent", w.userAgent)
	}
}

func newHeldSessions(g *Gateway) (h *heldSessions, err error) {
	const discharge, access = 2 << 10, 1 << 10 // about the size of each
	h = &heldSessions{g: g}
	if h.sessions, err = newRecent(g, 10, ofSession(tokenIdle, func(*heldSession) int { return discharge })); err != nil {
		return nil, err
	}
	h.tokens, err = newRecent(g, 20, cache.Config[string, *presented]{
		Idle: tokenIdle, Hash: tokenBits, PerGroup: variantsOfSession,
		// The token is kept as text, decoded, and in a bundle.
		Size:  func(token string, _ *presented) int { return access + 5*len(token) },
		Group: func(_ string, p *presented) (session [16]byte, narrowed bool) { return p.identity.Session, p.narrowed },
	})
	return h, err
}

func (h *heldSessions) session(id caveat.SessionID) *heldSession {
	if s, ok := h.sessions.get(id); ok {
		return s
	}
	return h.sessions.getOrPut(id, func() *heldSession { return &heldSession{id: id} })
}

// bundle gives a token with a discharge that has not run out.
func (h *heldSessions) bundle(ctx context.Context, t *presented, who forWhom) (string, error) {
	d, err := h.discharge(ctx, t, who)
	if err != nil {
		return "", err
	}
	if b := t.bundle.Load(); b != nil && b.of == d {
		return b.text, nil
	}
	bound := d.grant.Discharge.Clone()
	bound.Bind(t.access.Signature())
	text, err := bundle.Encode(macaroon.Slice{t.access, bound})
	if err != nil {
		return "", err
	}
	t.bundle.Store(&boundBundle{of: d, text: text})
	return text, nil
}

// discharge gives the session's discharge, and fetches one if it has to. While the
// service decides nothing, it waits.
func (h *heldSessions) discharge(ctx context.Context, t *presented, who forWhom) (*discharged, error) {
	s, now := h.session(t.identity.Session), h.g.cfg.Clock()
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
	known := func() error { return h.g.over(ctx, t.identity) }
	return await(ctx, h.g, p, h.g.waiterFor(exchangeOf(ctx), known))
}

// fetch returns the fetch under way or begins one, unless the last one failed a
// moment ago. It outlives the request that set it off. If a discharge is needed, the
// caller has joined the fetch, and a decision is the only failure.
func (h *heldSessions) fetch(s *heldSession, t *presented, who forWhom, now time.Time, needed bool) (*pursuit[*discharged], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight != nil && (!needed || s.flight.join()) {
		return s.flight, nil
	}
	p := newPursuit[*discharged]()
	if needed {
		p.join()
	}
	if d := s.current.Load(); d != nil && now.Before(d.refresh) {
		p.value = d // somebody was faster
		close(p.done)
		return p, nil
	}
	var pause time.Duration
	if s.failure != nil && now.Before(s.next) && (!isUndecided(s.failure) || s.sign == h.g.link.recovered()) {
		if !needed || !isUndecided(s.failure) {
			return nil, s.failure
		}
		p.fail(s.failure)
		pause = min(s.next.Sub(now), h.g.link.pause(s.failures, nil))
	}
	s.flight = p
	request := client.Request{Access: client.Access{Macaroon: t.access}, ClientIP: who.addr, UserAgent: who.userAgent}
	go func() {
		defer close(p.done)
		p.run(h.g.link, pause, func(ctx context.Context) (*discharged, error) {
			grant, err := h.g.once.Discharge(ctx, request)
			h.g.metrics.fetched("held", err)
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
func (h *heldSessions) land(s *heldSession, grant client.Grant, err error) (*discharged, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		d := h.keep(grant, s.inRhythm(h.g.cfg.Clock()))
		s.current.Store(d)
		s.failure, s.failures = nil, 0
		return d, nil
	}
	s.failure, s.next, s.sign = err, h.g.cfg.Clock().Add(h.pause(s.failures, err)), h.g.link.recovered()
	s.failures++
	var refused *client.RefusedError
	if errors.As(err, &refused) && refused.Ended {
		s.current.Store(nil)
	}
	return nil, err
}

// inRhythm reports whether a discharge that has just come follows one as it
// should: no fetch failed, and nobody was away for long.
func (s *heldSession) inRhythm(now time.Time) bool {
	d := s.current.Load()
	return d != nil && s.failures == 0 && now.Sub(d.until) < d.until.Sub(d.since)/4
}

// aheadOf is how long before a discharge is of no use any more another is
// fetched: the time that homeservers let clients wait for news.
const aheadOf = 30 * time.Second

// keep works out how long a discharge is used. If it does not come in rhythm,
// many others may come at the same time.
func (h *heldSessions) keep(grant client.Grant, rhythm bool) *discharged {
	now := h.g.cfg.Clock()
	life := grant.Remaining()
	refresh := life - min(aheadOf+margin(life), life/4)
	if !rhythm {
		refresh = life/2 + time.Duration(h.g.cfg.Jitter()*float64(refresh-life/2))
	}
	return &discharged{
		grant:   grant,
		since:   now,
		refresh: now.Add(refresh),
		until:   now.Add(life - margin(life)),
	}
}

// pause is how long a failure is an answer to further requests.
func (h *heldSessions) pause(failures int, err error) time.Duration {
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

// put notes a discharge that was fetched otherwise: at login.
func (h *heldSessions) put(id caveat.SessionID, grant client.Grant) {
	s := h.session(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current.Store(h.keep(grant, false))
}

// moved forgets a discharge that is for another address than the client's, so
// that one for this is asked for. It reports false if the last was fetched a
// moment ago: then two addresses have one token.
func (h *heldSessions) moved(s *heldSession) bool {
	d := s.current.Load()
	if d != nil && h.g.cfg.Clock().Sub(d.since) < movePause {
		return false
	}
	s.current.CompareAndSwap(d, nil)
	return true
}

const movePause = 10 * time.Second

// drop forgets the discharge of a session, so that the service is asked.
func (h *heldSessions) drop(id caveat.SessionID) {
	if s, ok := h.sessions.get(id); ok {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.current.Store(nil)
		s.failure, s.failures = nil, 0
	}
}

// margin is how much earlier than it is a client is told that something ends:
// five seconds, or a tenth of what is short.
func margin(life time.Duration) time.Duration { return min(5*time.Second, life/10) }
