package client

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// SessionConfig is what a [Session] is made from. Only Access is required.
type SessionConfig struct {
	// Access is the access macaroon. If it has third-party caveats for others
	// beside the one for the service, [Session.Bundle] cannot be used.
	Access Access
	// Token is the refresh token that Save was called with last. Empty: there
	// has been no discharge yet, or the mode has no refresh tokens.
	Token RefreshToken
	// Save stores a new refresh token, so that it survives this process. It is
	// called before the token, or the discharge that came with it, is used, and
	// has until [Config.Timeout]. While it fails, the session goes on with what
	// it had. Nil: the token lives no longer than the Session.
	Save func(context.Context, RefreshToken) error
	// ClientIP and UserAgent are those of the client for whom a homeserver
	// keeps this session; see [Request].
	ClientIP  netip.Addr
	UserAgent string
}

// Session keeps one access macaroon discharged. It may be used concurrently.
//
// A discharge is refreshed when 50 to 80 % of its lifetime are over, by the
// first call after that or by [Session.Run], while the old one is still handed
// out. However short it lives, it is handed out for a second. However many ask,
// there is one refresh at a time, and it does not end with the call that set it
// off.
//
// A refresh whose answer was lost is repeated under the same request-id, for
// as long as no answer is known, so the service takes it for the one refresh
// that it is. The same happens if the new token cannot be saved. If the process
// dies before it is, the old token still works, because nothing that came with
// the new one has been used.
//
// One refresh token must not be used by two Sessions, here or elsewhere: the
// service could not tell the second from a thief.
type Session struct {
	client   *Client
	cfg      SessionConfig
	caveat   []byte // id of the service's caveat
	external []byte // and the part of it that is beside the macaroon, if any
	partial  error  // why there are no bundles; nil: there are

	mu        sync.Mutex
	token     RefreshToken
	requestID string        // of the refresh that has no answer yet; empty: none
	current   *current      // nil: no discharge yet
	notBefore time.Time     // no new refresh before this, after a failure
	failures  int           // in a row
	failure   error         // the last of them
	over      *RefusedError // the session has ended
	leaving   int           // logouts under way: no new refresh
	flight    *flight       // the refresh under way; nil: none
}

// current is a discharge in use.
type current struct {
	grant     Grant
	bundle    string
	refreshAt time.Time
	goodUntil time.Time // a moment before it expires
}

// flight is one refresh, which any number of calls wait for.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the rest is set
	result *current
	err    error
}

// NewSession makes a session. It asks the service for nothing yet.
func (c *Client) NewSession(cfg SessionConfig) (*Session, error) {
	id, external, err := cfg.Access.caveatFor(c.cfg.Location)
	if err != nil {
		return nil, fmt.Errorf("new session: %w", err)
	}
	if cfg.Save == nil {
		cfg.Save = func(context.Context, RefreshToken) error { return nil }
	}
	s := &Session{client: c, cfg: cfg, caveat: id, external: external, partial: cfg.Access.complete(c.cfg.Location), token: cfg.Token}
	s.cfg.Access.Macaroon = cfg.Access.Macaroon.Clone()
	return s, nil
}

// Bundle gives a bundle that the homeserver accepts now, and for a little while
// yet. It asks the service only if it has to.
//
// Errors are those of [Client.Discharge], or Save's. After a [RefusedError] that
// is final, every call returns it. After any other failure, another refresh is
// attempted by a later call, but no sooner than the pause that the service asked
// for or that good manners ask for; until then calls return the failure at once.
func (s *Session) Bundle(ctx context.Context) (string, error) {
	if s.partial != nil {
		return "", s.partial
	}
	c, err := s.ensure(ctx, false)
	if err != nil {
		return "", err
	}
	return c.bundle, nil
}

// Grant is [Session.Bundle] for those who bind the discharge themselves. What it
// gives is the caller's to change.
func (s *Session) Grant(ctx context.Context) (Grant, error) {
	c, err := s.ensure(ctx, false)
	if err != nil {
		return Grant{}, err
	}
	g := c.grant
	g.Access, g.Discharge = g.Access.Clone(), g.Discharge.Clone()
	return g, nil
}

// Discharges reports whether the caveat with this id, and this external part if
// it has one, is the one that the session gets discharges for.
func (s *Session) Discharges(caveatID, external []byte) bool {
	return bytes.Equal(caveatID, s.caveat) && bytes.Equal(external, s.external)
}

// Refresh gets a new discharge now, even if there is a good one: for when the
// homeserver has refused it. Errors are those of Bundle.
func (s *Session) Refresh(ctx context.Context) error {
	_, err := s.ensure(ctx, true)
	return err
}

// Run keeps the discharge fresh, so that Bundle never has to wait, until ctx
// ends or the session is over. It goes on through every other failure. The
// result is the final refusal, or nil if ctx ended.
func (s *Session) Run(ctx context.Context) error {
	pause := time.Duration(0)
	for {
		wait, err := s.due()
		if err != nil {
			return err
		}
		timer := time.NewTimer(max(wait, pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		s.mu.Lock()
		f, err := s.launch(ctx)
		s.mu.Unlock()
		if pause = 0; err != nil {
			pause = firstPause // a logout is under way, for instance
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil
		}
	}
}

// due says how long it is until the next refresh. It is never quite nothing,
// so that a clock that stands still costs no processor.
func (s *Session) due() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return 0, s.over
	}
	now := s.client.cfg.Clock()
	wait := max(s.notBefore.Sub(now), time.Millisecond)
	if s.current != nil {
		wait = max(wait, left(now, s.current.refreshAt))
	}
	return wait, nil
}

// left says how long it is until t, by the wall clock or by the monotonic one,
// whichever is there sooner. The first can be set back. The second stands still
// while a computer sleeps, and discharges expire all the same.
func left(now, t time.Time) time.Duration {
	return min(t.Sub(now), t.Round(0).Sub(now.Round(0)))
}

// ensure gives a good discharge: the current one if it is good and fresh is
// false.
func (s *Session) ensure(ctx context.Context, fresh bool) (*current, error) {
	s.mu.Lock()
	now, c := s.client.cfg.Clock(), s.current
	if !fresh && s.over == nil && c != nil && left(now, c.goodUntil) > 0 {
		if left(now, c.refreshAt) <= 0 {
			// Whether one begins or not makes no difference to this call.
			_, _ = s.launch(ctx)
		}
		s.mu.Unlock()
		return c, nil
	}
	f, err := s.launch(ctx)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
		return nil, &UnavailableError{Err: ctx.Err()}
	}
}
