package discharger

import (
	"cmp"
	"context"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/policy"
)

// What a client may see and do of its own user's sessions. It proves its
// session with what would be good for a discharge; nothing is discharged,
// confirmed or noted because of it, and no policy is asked.

// OwnSessions lists the live sessions of the user whose session is presented,
// the most recently used first, and says which of them that is. It asks for
// what a refresh would ask for, and leaves a refresh token as it is.
func (s *Service) OwnSessions(ctx context.Context, req *Request) (own caveat.SessionID, list []SessionInfo, err error) {
	a, err := s.begin(OpOwnSessions, req)
	a.event.Kind = session.EventOwn
	if err == nil {
		list, err = s.ownSessions(ctx, a)
	}
	return a.cond.Session, list, s.finish(ctx, a, err)
}

func (s *Service) ownSessions(ctx context.Context, a *attempt) ([]SessionInfo, error) {
	st, v, err := s.load(ctx, a)
	if err != nil {
		return nil, err
	}
	if err := s.prove(ctx, a, &st, v); err != nil {
		return nil, err
	}
	live, _, err := s.list(ctx, a, st.Homeserver)
	if err != nil {
		return nil, err
	}
	return infos(live), nil
}

// RevokeOwn ends a session of the user whose session is presented: another one,
// or itself, which is [Service.Logout]. What is not a session of that user is
// left alone, and no error.
func (s *Service) RevokeOwn(ctx context.Context, req *Request, id caveat.SessionID) error {
	a, err := s.begin(OpRevokeOwn, req)
	a.event.Kind = session.EventOwn
	switch {
	case err != nil:
	case id == a.cond.Session:
		a.event.Kind = session.EventLogout
		err = s.logout(ctx, a)
	default:
		err = s.attempt(ctx, a, func(st session.State, v store.View) (edit, error) { return s.revokeOwn(ctx, a, st, v, id) })
	}
	return s.finish(ctx, a, err)
}

// revokeOwn looks for the session among the user's own: its id alone must not
// be enough to end it, or to have the feed say so.
func (s *Service) revokeOwn(ctx context.Context, a *attempt, st session.State, v store.View, id caveat.SessionID) (edit, error) {
	if err := s.prove(ctx, a, &st, v); err != nil {
		return edit{}, err
	}
	live, gone, err := s.list(ctx, a, st.Homeserver)
	if err != nil {
		return edit{}, err
	}
	for _, o := range live {
		if o.id == id {
			var ed edit
			err := s.end(&ed, a, o, revocation.End{Cause: revocation.CauseLogout, At: a.event.Now})
			return ed, err
		}
	}
	for _, o := range gone {
		if o.id == id {
			return edit{revoked: s.remains(a, []stored{o})}, nil
		}
	}
	return edit{}, nil
}

// prove refuses what would get no discharge. A token that only shows that
// somebody has a copy of it is refused too, and has no other consequence here.
// An end by time is stored, since every later answer has to agree with it.
func (s *Service) prove(ctx context.Context, a *attempt, st *session.State, v store.View) error {
	o, err := s.step(ctx, a, st)
	switch {
	case err != nil:
		return err
	case o.Replay == policy.ReplayReuse:
		return &Refusal{Reason: session.ReasonTokenSuperseded}
	case o.Ended && o.Next != nil:
		var ed edit
		if err := s.changeSession(&ed, a, a.cond.Session, v.Session, o.Next, a.cond.Minted); err != nil {
			return unavailable(err)
		}
		if done, err := s.swap(ctx, a, ed); err != nil || !done {
			return cmp.Or(err, errContention)
		}
	}
	if o.Reason != "" {
		return &Refusal{Reason: o.Reason, Ended: o.Ended, SoftLogout: o.Ended && o.End.Soft}
	}
	return nil
}
