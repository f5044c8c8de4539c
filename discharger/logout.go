package discharger

import (
	"context"
	"github.com/discharger/discharger/discharger/session"
)

// Scope is how much a logout ends.
type Scope uint8

// The scopes.
const (
	ScopeSession Scope = iota // the session itself
	ScopeUser                 // every session of its user
)

// Logout ends the session, or every session of its user, and returns when
// that is durable. It asks for what a refresh would ask for. Repeating it is
// not an error, nor is logging out a session that is gone.
func (s *Service) Logout(ctx context.Context, req *Request, scope Scope) error {
	op, kind := OpLogout, session.EventLogout
	if scope == ScopeUser {
		op, kind = OpLogoutAll, session.EventLogoutAll
	}
	a, err := s.begin(op, req)
	a.event.Kind = kind
	if err == nil {
		err = s.logout(ctx, a)
	}
	return s.finish(ctx, a, err)
}

func (s *Service) logout(ctx context.Context, a *attempt) error {
	for range maxRevokeRetries {
		state, view, err := s.load(ctx, a)
		if err != nil {
			return err
		}
		ruling, err := s.decide(ctx, a, &state)
		if err != nil {
			return err
		}
		done, err := s.store(ctx, a, &ruling, state, view)
		if err != nil {
			return err
		}
		if done && ruling.Reason != "" {
			return refusal(&ruling)
		}
		if done {
			return nil
		}
		a.obs.Retries++
	}
	return errContention
}
