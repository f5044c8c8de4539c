package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// OwnSessions lists the live sessions of the user whose session r presents, the
// most recently used first; Current says which one that is. It takes what a
// discharge would take, and leaves a refresh token as it is. Attempts and
// errors are as with [Client.Discharge].
func (c *Client) OwnSessions(ctx context.Context, r Request) ([]wire.SessionInfo, error) {
	var body wire.SessionsResponse
	form, err := c.form(r)
	if err == nil {
		err = c.patiently(ctx, func(ctx context.Context) error {
			return c.do(ctx, http.MethodPost, wire.PathOwnSessions, form, &body)
		})
	}
	if err != nil {
		return nil, fmt.Errorf("list own sessions: %w", err)
	}
	return body.Sessions, nil
}

// RevokeOwn ends a session of the user whose session r presents. It succeeds
// for one that is gone, and for one that never was the user's. Attempts and
// errors are as with [Client.Discharge].
func (c *Client) RevokeOwn(ctx context.Context, r Request, id caveat.SessionID) error {
	form, err := c.form(r)
	if err == nil {
		form.Set(wire.ParamSession, id.String())
		err = c.patiently(ctx, func(ctx context.Context) error {
			return c.do(ctx, http.MethodPost, wire.PathRevokeOwn, form, &struct{}{})
		})
	}
	if err != nil {
		return fmt.Errorf("revoke own session: %w", err)
	}
	return nil
}

// Sessions lists the live sessions of the session's user; Current says which
// one is this. Errors are those of [Client.OwnSessions].
func (s *Session) Sessions(ctx context.Context) (list []wire.SessionInfo, err error) {
	err = s.present(ctx, func(r Request) error {
		list, err = s.client.OwnSessions(ctx, r)
		return err
	})
	return list, err
}

// Revoke ends another session of the session's user; for this one there is
// [Session.Logout]. Errors are those of [Client.RevokeOwn].
func (s *Session) Revoke(ctx context.Context, id caveat.SessionID) error {
	return s.present(ctx, func(r Request) error { return s.client.RevokeOwn(ctx, r, id) })
}

// present asks something with the token that the session has. If a refresh has
// replaced that meanwhile, it asks once more.
func (s *Session) present(ctx context.Context, ask func(Request) error) error {
	for again := true; ; again = false {
		r, err := s.settled(ctx)
		if err != nil {
			return err
		}
		err = ask(r)
		s.mu.Lock()
		var refused *RefusedError
		stale := errors.As(err, &refused) && refused.Reason == wire.ReasonTokenSuperseded && s.token != r.Token
		s.settle(err)
		s.mu.Unlock()
		if !stale || !again {
			return err
		}
	}
}

// settled waits for a refresh that is under way, and gives what the session can
// be presented with.
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
		select {
		case <-f.done:
		case <-ctx.Done():
			return Request{}, &UnavailableError{Err: ctx.Err()}
		}
	}
}
