package discharger

import (
	"cmp"
	"context"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/policy"
)

// Scope is the set of sessions that a logout ends.
type Scope uint8

// The scopes.
const (
	ScopeSession Scope = iota // the session itself
	ScopeUser                 // every session of its user
)

// Logout ends the session, or every session of its user, and returns when the end is
// durable. It requires the same as a refresh. A repeated logout is no error, nor is
// the logout of a forgotten session.
func (s *Service) Logout(ctx context.Context, req *Request, scope Scope) error {
	op, kind := OpLogout, session.EventLogout
	if scope == ScopeUser {
		op, kind = OpLogoutAll, session.EventLogoutAll
	}
	c, err := s.newClientOp(op, kind, req)
	if err == nil {
		_, err = s.settle(ctx, c, maxRevokeRetries)
	}
	return s.finishClient(ctx, c, err)
}

// OwnSessions lists the live sessions of the presented session's user, the most
// recently used first, and returns the id of the presented one. It requires the same
// as a refresh, and does not exchange the refresh token.
func (s *Service) OwnSessions(ctx context.Context, req *Request) (own caveat.SessionID, list []SessionInfo, err error) {
	c, err := s.newClientOp(OpOwnSessions, session.EventOwn, req)
	if err == nil {
		list, err = s.ownSessions(ctx, c)
	}
	return c.session, list, s.finishClient(ctx, c, err)
}

func (s *Service) ownSessions(ctx context.Context, c *clientOp) ([]SessionInfo, error) {
	rec, err := s.load(ctx, &c.operation)
	if err != nil {
		return nil, err
	}
	if err := s.authorize(ctx, c, &rec); err != nil {
		return nil, err
	}
	live, _, err := s.list(ctx, &c.operation, &rec)
	if err != nil {
		return nil, err
	}
	return infos(live), nil
}

// RevokeOwn ends a session of the presented session's user: another one, or the
// presented one as [Service.Logout] does. The id of another user's session has no
// effect and is no error.
func (s *Service) RevokeOwn(ctx context.Context, req *Request, id caveat.SessionID) error {
	c, err := s.newClientOp(OpRevokeOwn, session.EventOwn, req)
	switch {
	case err != nil:
	case id == c.session:
		c.event.Kind = session.EventLogout
		_, err = s.settle(ctx, c, maxRevokeRetries)
	default:
		err = s.retry(ctx, &c.operation, func(rec *records) (edit, error) { return s.revokeOwn(ctx, c, rec, id) })
	}
	return s.finishClient(ctx, c, err)
}

// revokeOwn looks the session up among the user's own: its id alone must not be
// enough to end it or to publish its end.
func (s *Service) revokeOwn(ctx context.Context, c *clientOp, rec *records, id caveat.SessionID) (ed edit, err error) {
	if err := s.authorize(ctx, c, rec); err != nil {
		return edit{}, err
	}
	live, ended, err := s.list(ctx, &c.operation, rec)
	if err != nil {
		return edit{}, err
	}
	for _, x := range live {
		if x.id == id {
			err := s.end(&ed, &c.operation, x, revocation.End{Cause: revocation.CauseLogout, At: c.event.Now})
			return ed, err
		}
	}
	for _, x := range ended {
		if x.id == id {
			s.republishAll(&ed, &c.operation, []stored{x})
		}
	}
	return ed, nil
}

// authorize returns the refusal of an operation that would get no discharge. A reused
// token is refused without ending the session. An end by time is stored, so that
// every later answer agrees with it.
func (s *Service) authorize(ctx context.Context, c *clientOp, rec *records) error {
	o, err := s.step(ctx, c, rec)
	switch {
	case err != nil:
		return err
	case o.Replay == policy.ReplayReuse:
		return &Refusal{Reason: session.ReasonTokenSuperseded}
	case o.Ended && o.Next != nil:
		var ed edit
		if err := s.changeSession(&ed, &c.operation, stored{id: c.session, raw: rec.view.Session}, o.Next, &c.cond); err != nil {
			return unavailable(err)
		}
		if done, err := s.write(ctx, &c.operation, ed); err != nil || !done {
			return cmp.Or(err, errContention)
		}
	}
	if o.Reason != "" {
		return refusal(&o, "")
	}
	return nil
}
