package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// SessionConfig configures a [Session]. Only Access is required.
type SessionConfig struct {
	// Access is the access macaroon. If it has third-party caveats beside the one
	// for the service, [Session.Bundle] fails.
	Access Access
	// Token is the latest refresh token passed to Save. Empty: before the first
	// discharge, or in a mode without refresh tokens.
	Token RefreshToken
	// Save stores a new refresh token across restarts, before the token or its
	// discharge is used, within [Config.Timeout]. While it fails, the session continues
	// with the previous token. Nil: the token lives as long as the Session.
	Save func(context.Context, RefreshToken) error
	// ClientIP and UserAgent are the client's, if its homeserver keeps the session;
	// see [Request].
	ClientIP  netip.Addr
	UserAgent string
}

// Session keeps one access macaroon discharged. It may be used concurrently.
//
// A discharge is refreshed after 50 to 80 % of its lifetime, by the next call or by
// [Session.Run], and the old one is used meanwhile, each for at least a second. There
// is one refresh at a time for all callers, and it does not end with the call that
// started it.
//
// A refresh is repeated under the same request-id until it is answered and the new
// token is saved, so that the service counts it once. If the process dies before
// Save returns, the old token still works: nothing that came with the new one was used.
//
// Two Sessions must not use one refresh token, in one process or in several: the
// service cannot tell the second from a thief.
type Session struct {
	client   *Client
	cfg      SessionConfig
	caveat   []byte // id of the caveat
	external []byte // external part of the caveat, if it has one
	partial  error  // why there are no bundles; nil: there are

	mu        sync.Mutex
	token     RefreshToken
	requestID string    // of the refresh without an answer; empty: none
	current   *current  // nil: no discharge yet
	notBefore time.Time // earliest next refresh, after a failure
	pauses    *backoff.ExponentialBackOff
	failure   error         // latest
	over      *RefusedError // the session has ended
	leaving   int           // logouts in progress: no new refresh
	flight    *flight       // refresh in progress; nil: none
}

// current is the discharge in use.
type current struct {
	grant     Grant
	bundle    string
	refreshAt time.Time
	goodUntil time.Time // shortly before it expires
}

// flight is a refresh in progress.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when result and err are set
	result *current
	err    error
}

// wait blocks until the refresh is done, or ctx ends, which is the only error.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return &UnavailableError{Err: ctx.Err()}
	}
}

// NewSession returns a session. It sends no request.
func (c *Client) NewSession(cfg SessionConfig) (*Session, error) {
	id, external, err := cfg.Access.caveatFor(c.cfg.Location)
	if err != nil {
		return nil, fmt.Errorf("new session: %w", err)
	}
	if cfg.Save == nil {
		cfg.Save = func(context.Context, RefreshToken) error { return nil }
	}
	s := &Session{
		client: c, cfg: cfg, caveat: id, external: external, partial: cfg.Access.complete(c.cfg.Location),
		token: cfg.Token, pauses: newBackoff(),
	}
	s.cfg.Access.Macaroon = cfg.Access.Macaroon.Clone()
	return s, nil
}

// Bundle returns a bundle that the homeserver accepts now and for some seconds. It
// sends a request only without a good discharge. Errors are those of
// [Client.Discharge] and of Save. A [RefusedError] with Ended is returned from then on,
// and any other failure until a pause is over.
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

// Grant is [Session.Bundle] for callers that bind the discharge themselves. The
// caller owns the result.
func (s *Session) Grant(ctx context.Context) (Grant, error) {
	c, err := s.ensure(ctx, false)
	if err != nil {
		return Grant{}, err
	}
	g := c.grant
	g.Access, g.Discharge = g.Access.Clone(), g.Discharge.Clone()
	return g, nil
}

// Discharges reports whether the session fetches discharges for the caveat with
// this id and external part.
func (s *Session) Discharges(caveatID, external []byte) bool {
	return bytes.Equal(caveatID, s.caveat) && bytes.Equal(external, s.external)
}

// Refresh fetches a new discharge even if there is a good one, for a homeserver that
// refused it. Errors are those of Bundle.
func (s *Session) Refresh(ctx context.Context) error {
	_, err := s.ensure(ctx, true)
	return err
}

// Run refreshes ahead of time, so that Bundle does not wait, until ctx or the
// session ends. It continues after every other failure. It returns nil after ctx
// ended, and the refusal that ended the session otherwise.
func (s *Session) Run(ctx context.Context) error {
	pause := time.Duration(0)
	for {
		wait, err := s.due()
		if err != nil {
			return err
		}
		select {
		case <-time.After(max(wait, pause)):
		case <-ctx.Done():
			return nil
		}
		s.mu.Lock()
		f, err := s.launch(ctx)
		s.mu.Unlock()
		if pause = 0; err != nil {
			pause = minPause // a logout is in progress, for instance
			continue
		}
		if f.wait(ctx) != nil {
			return nil
		}
	}
}

// due returns the time until the next refresh. It is positive, so that a clock
// that stands still costs no CPU time.
func (s *Session) due() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over != nil {
		return 0, s.over
	}
	now := s.client.now()
	wait := max(s.notBefore.Sub(now), time.Millisecond)
	if s.current != nil {
		wait = max(wait, left(now, s.current.refreshAt))
	}
	return wait, nil
}

// left returns the lesser of the times until t by the wall clock, which can be set
// back, and by the monotonic clock, which stands still while a computer sleeps.
func left(now, t time.Time) time.Duration {
	return min(t.Sub(now), t.Round(0).Sub(now.Round(0)))
}

// ensure returns the current discharge if it is good and fresh is false, and a new
// one otherwise.
func (s *Session) ensure(ctx context.Context, fresh bool) (*current, error) {
	s.mu.Lock()
	now, c := s.client.now(), s.current
	if !fresh && s.over == nil && c != nil && left(now, c.goodUntil) > 0 {
		if left(now, c.refreshAt) <= 0 {
			_, _ = s.launch(ctx) // this call does not depend on it
		}
		s.mu.Unlock()
		return c, nil
	}
	f, err := s.launch(ctx)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	return f.result, f.err
}

// OwnSessions lists the live sessions of the session's user; Current marks this
// one. Errors are those of [Client.OwnSessions].
func (s *Session) OwnSessions(ctx context.Context) (list []wire.SessionInfo, err error) {
	err = s.present(ctx, func(r Request) error {
		list, err = s.client.OwnSessions(ctx, r)
		return err
	})
	return list, err
}

// RevokeOwn ends another session of the session's user; [Session.Logout]
// ends this one. Errors are those of [Client.RevokeOwn].
func (s *Session) RevokeOwn(ctx context.Context, id caveat.SessionID) error {
	return s.present(ctx, func(r Request) error { return s.client.RevokeOwn(ctx, r, id) })
}

// present calls send with the current token. It repeats the call once if a refresh
// has replaced that token meanwhile.
func (s *Session) present(ctx context.Context, send func(Request) error) error {
	for first := true; ; first = false {
		r, err := s.settled(ctx)
		if err != nil {
			return err
		}
		err = send(r)
		s.mu.Lock()
		refused, ok := errors.AsType[*RefusedError](err)
		stale := ok && refused.Reason == wire.ReasonTokenSuperseded && s.token != r.Token
		s.settle(err)
		s.mu.Unlock()
		if !stale || !first {
			return err
		}
	}
}

// settled waits for the refresh in progress, and returns a request with the token
// after it.
func (s *Session) settled(ctx context.Context) (Request, error) {
	for {
		s.mu.Lock()
		r, f, over := s.request(""), s.flight, s.over
		s.mu.Unlock()
		switch {
		case over != nil:
			return Request{}, over
		case f == nil:
			return r, nil
		}
		if err := f.wait(ctx); err != nil {
			return Request{}, err
		}
	}
}

// Format writes the location and no secret, for every verb.
func (s *Session) Format(f fmt.State, _ rune) {
	io.WriteString(f, "session at "+s.client.cfg.Location)
}
