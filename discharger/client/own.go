package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// OwnSessions lists the live sessions of the user that r presents a session of,
// the newest first; Current marks that session. It has the
// requirements of a discharge and leaves a refresh token unused. Attempts and errors are as for
// [Client.Discharge].
func (c *Client) OwnSessions(ctx context.Context, r Request) ([]wire.SessionInfo, error) {
	var body wire.SessionsResponse
	err := c.present(ctx, r, func(ctx context.Context, form url.Values) error {
		return c.post(ctx, wire.PathOwnSessions, form, &body)
	})
	if err != nil {
		return nil, fmt.Errorf("list own sessions: %w", err)
	}
	return body.Sessions, nil
}

// RevokeOwn ends a session of the user that r presents a session of. It
// succeeds for a session that is over, and for one of another user, which it
// leaves alone. Attempts and errors are as for [Client.Discharge].
func (c *Client) RevokeOwn(ctx context.Context, r Request, id caveat.SessionID) error {
	err := c.present(ctx, r, func(ctx context.Context, form url.Values) error {
		form.Set(wire.ParamSession, id.String())
		return c.post(ctx, wire.PathRevokeOwn, form, &struct{}{})
	})
	if err != nil {
		return fmt.Errorf("revoke own session: %w", err)
	}
	return nil
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
		var refused *RefusedError
		stale := errors.As(err, &refused) && refused.Reason == wire.ReasonTokenSuperseded && s.token != r.Token
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
		select {
		case <-f.done:
		case <-ctx.Done():
			return Request{}, &UnavailableError{Err: ctx.Err()}
		}
	}
}
