package client

import (
	"context"
	"errors"
	"fmt"
	"github.com/discharger/discharger/discharger/wire"
	"io"
	"time"
)

// launch joins the refresh under way or begins one. The session is locked. The
// refresh outlives ctx, of which it takes only the values: others may be
// waiting for it too.
func (s *Session) launch(ctx context.Context) (*flight, error) {
	now := s.client.cfg.Clock()
	switch {
	case s.over != nil:
		return nil, s.over
	case s.leaving > 0:
		return nil, &UnavailableError{Err: errors.New("logout is under way")}
	case s.flight != nil:
		return s.flight, nil
	case now.Before(s.notBefore):
		return nil, s.lastFailure(now)
	}
	if s.requestID == "" {
		id, err := s.client.newRequestID()
		if err != nil {
			return nil, err
		}
		s.requestID = id
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{cancel: cancel, done: make(chan struct{})}
	s.flight = f
	go s.fly(ctx, f, s.request(s.requestID))
	return f, nil
}

// lastFailure is the last failure, with what is left of its pause.
func (s *Session) lastFailure(now time.Time) error {
	var unavailable *UnavailableError
	if errors.As(s.failure, &unavailable) {
		return &UnavailableError{RetryAfter: s.notBefore.Sub(now), Err: unavailable.Err}
	}
	return s.failure
}

func (s *Session) request(id string) Request {
	return Request{
		Access:    s.cfg.Access,
		Token:     s.token,
		RequestID: id,
		ClientIP:  s.cfg.ClientIP,
		UserAgent: s.cfg.UserAgent,
	}
}

// fly makes one refresh. The order of its steps is what makes a crash between
// any two of them harmless: answer, save, use.
func (s *Session) fly(ctx context.Context, f *flight, r Request) {
	defer f.cancel()
	grant, err := s.client.Discharge(ctx, r)
	if err != nil {
		s.land(f, nil, err)
		return
	}
	var bundle string
	if s.partial == nil {
		bundle, err = grant.Bundle()
	}
	if err == nil && grant.Token != "" {
		err = s.saveToken(ctx, grant.Token)
	}
	if err != nil {
		s.land(f, nil, err)
		return
	}
	now := s.client.cfg.Clock()
	lifetime := max(0, grant.Expires.Sub(now))
	ahead := refreshAhead(lifetime, s.client.cfg.Jitter())
	s.land(f, &current{
		grant:     grant,
		bundle:    bundle,
		refreshAt: now.Add(max(lifetime-ahead, shortest)),
		goodUntil: now.Add(max(lifetime-min(lifetime/10, 5*time.Second), shortest)),
	}, nil)
}

// refreshAhead is how long before its end a discharge is refreshed. It differs
// widely, so that clients who all got one when the service was back do not all
// come again at the same time.
func refreshAhead(lifetime time.Duration, jitter float64) time.Duration {
	return time.Duration((0.5 - 0.3*jitter) * float64(lifetime))
}

// shortest is how long a discharge is handed out at least. Where clocks
// disagree, each may look as if it had expired already, and there must not be a
// request to the service for every call.
const shortest = time.Second

// saveToken hands a new token to whoever stores it. A logout that cancels the
// refresh does not cancel this.
func (s *Session) saveToken(ctx context.Context, token RefreshToken) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.client.cfg.Timeout)
	defer cancel()
	if err := s.cfg.Save(ctx, token); err != nil {
		return fmt.Errorf("save refresh token: %w", err)
	}
	return nil
}

// land takes over the result of a refresh.
func (s *Session) land(f *flight, result *current, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(f.done)
	f.result, f.err, s.flight = result, err, nil
	if err == nil {
		s.current, s.requestID = result, ""
		s.failures, s.failure, s.notBefore = 0, nil, time.Time{}
		if result.grant.Token != "" {
			s.token = result.grant.Token
		}
		return
	}
	var unavailable *UnavailableError
	var retryAfter time.Duration
	if errors.As(err, &unavailable) {
		retryAfter = unavailable.RetryAfter
	}
	s.failure, s.notBefore = err, s.client.cfg.Clock().Add(s.client.pause(s.failures, retryAfter))
	s.failures++
	if errors.Is(err, ErrRefused) || errors.Is(err, ErrBadRequest) {
		s.requestID = "" // that was the answer
	}
	s.settle(err)
}

// settle notes that the session is over, if that is what an error says. The
// session is locked.
func (s *Session) settle(err error) {
	var refused *RefusedError
	if errors.As(err, &refused) && refused.Final() {
		s.over, s.current, s.token = refused, nil, ""
	}
}

// Logout ends the session at the service, or with [wire.ScopeUser] all of the
// user's. A refresh under way is called off first. After success, what the
// session held is gone from it, and every call returns a [RefusedError]; what
// Save stored is the caller's to remove. Errors are those of [Client.Logout];
// after one, the session goes on unless it was a final refusal. A session that
// is over already has nothing to log out with, and gives that refusal.
func (s *Session) Logout(ctx context.Context, scope wire.Scope) error {
	s.mu.Lock()
	if s.over != nil {
		defer s.mu.Unlock()
		return s.over
	}
	s.leaving++
	f := s.flight
	s.mu.Unlock()
	err := s.leave(ctx, f, scope)
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

// leave waits for the refresh under way, and then logs out with the token that
// it left.
func (s *Session) leave(ctx context.Context, f *flight, scope wire.Scope) error {
	if f != nil {
		f.cancel()
		select {
		case <-f.done:
		case <-ctx.Done():
			return fmt.Errorf("log out: %w", &UnavailableError{Err: ctx.Err()})
		}
	}
	s.mu.Lock()
	r, over := s.request(""), s.over
	s.mu.Unlock()
	if over != nil { // that was the refresh's answer
		return over
	}
	return s.client.Logout(ctx, r, scope)
}

// Format writes what the session is of, and no secret, whatever the verb.
func (s *Session) Format(f fmt.State, _ rune) {
	io.WriteString(f, "session at "+s.client.cfg.Location)
}
