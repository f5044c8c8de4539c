package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/wire"
)

// launch returns the refresh in progress or starts one. The caller holds s.mu. Of
// ctx the refresh takes only the values, since other callers may wait for it.
func (s *Session) launch(ctx context.Context) (*flight, error) {
	now := s.client.now()
	switch {
	case s.over != nil:
		return nil, s.over
	case s.leaving > 0:
		return nil, &UnavailableError{Err: errors.New("logout is in progress")}
	case s.flight != nil:
		return s.flight, nil
	case now.Before(s.notBefore):
		return nil, s.lastFailure(now)
	}
	if s.requestID == "" {
		s.requestID = newRequestID()
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{cancel: cancel, done: make(chan struct{})}
	s.flight = f
	go s.fly(ctx, f, s.request(s.requestID))
	return f, nil
}

// lastFailure returns the latest failure with the rest of its pause.
func (s *Session) lastFailure(now time.Time) error {
	if unavailable, ok := errors.AsType[*UnavailableError](s.failure); ok {
		return &UnavailableError{RetryAfter: s.notBefore.Sub(now), Err: unavailable.Err}
	}
	return s.failure
}

func (s *Session) request(id string) Request {
	return Request{
		Access: s.cfg.Access, Token: s.token, RequestID: id, ClientIP: s.cfg.ClientIP, UserAgent: s.cfg.UserAgent,
	}
}

// fly refreshes. The order of its steps makes a crash between them harmless:
// answer, save, use.
func (s *Session) fly(ctx context.Context, f *flight, r Request) {
	defer f.cancel()
	grant, err := s.client.Discharge(ctx, r)
	var bundle string
	if err == nil && s.partial == nil {
		bundle, err = grant.Bundle()
	}
	if err == nil && grant.Token != "" {
		err = s.saveToken(ctx, grant.Token)
	}
	if err != nil {
		s.land(f, nil, err)
		return
	}
	now := s.client.now()
	lifetime := max(0, grant.Expires.Sub(now))
	ahead := refreshAhead(lifetime, s.client.jitter())
	s.land(f, &current{
		grant:     grant,
		bundle:    bundle,
		refreshAt: now.Add(max(lifetime-ahead, minUse)),
		goodUntil: now.Add(max(lifetime-min(lifetime/10, 5*time.Second), minUse)),
	}, nil)
}

// refreshAhead returns the time between the refresh of a discharge and its end. It
// varies widely, so that clients do not all return at the same time after an outage.
func refreshAhead(lifetime time.Duration, jitter float64) time.Duration {
	return time.Duration((0.5 - 0.3*jitter) * float64(lifetime))
}

// minUse is the least time for which a discharge is used: if clocks disagree, each can
// look expired at once.
const minUse = time.Second

// saveToken passes a new token to Save. A logout that cancels the refresh does not
// cancel it.
func (s *Session) saveToken(ctx context.Context, token RefreshToken) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.client.cfg.Timeout)
	defer cancel()
	if err := s.cfg.Save(ctx, token); err != nil {
		return fmt.Errorf("save refresh token: %w", err)
	}
	return nil
}

// land stores the result of a refresh and wakes its callers.
func (s *Session) land(f *flight, result *current, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	f.result, f.err, s.flight = result, err, nil
	if err == nil {
		s.current, s.requestID = result, ""
		s.failure, s.notBefore = nil, time.Time{}
		s.pauses.Reset()
		if result.grant.Token != "" {
			s.token = result.grant.Token
		}
		return
	}
	s.failure, s.notBefore = err, s.client.now().Add(pauseAfter(err, s.pauses))
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrBadRequest) {
		s.requestID = "" // this was the answer
	}
	s.settle(err)
}

// settle ends the session if err is a refusal that ended it. The caller holds s.mu.
func (s *Session) settle(err error) {
	if refused, ok := errors.AsType[*RefusedError](err); ok && refused.Ended {
		s.over, s.current, s.token = refused, nil, ""
	}
}

// Logout ends the session at the service, or with [wire.ScopeUser] all sessions of
// the user. It cancels a refresh in progress. From then on every method returns a
// [RefusedError]; the caller removes the token that Save stored. Errors are those of
// [Client.Logout], after which the session continues, and the refusal that ended it.
func (s *Session) Logout(ctx context.Context, scope wire.Scope) error {
	s.mu.Lock()
	if s.over != nil {
		defer s.mu.Unlock()
		return s.over
	}
	s.leaving++
	if s.flight != nil {
		s.flight.cancel()
	}
	s.mu.Unlock()
	r, err := s.settled(ctx)
	switch {
	case err == nil:
		err = s.client.Logout(ctx, r, scope)
	case !errors.Is(err, ErrRefused): // not the answer to the refresh
		err = fmt.Errorf("log out: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaving--
	if err == nil {
		s.settle(&RefusedError{Reason: wire.ReasonSessionEnded, Ended: true, Message: "logged out"})
		return nil
	}
	s.settle(err)
	return err
}
