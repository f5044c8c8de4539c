package discharger

import (
	"context"
	"fmt"

	"github.com/discharger/discharger/discharger/caveat"
)

// What a client may see and do of its own user's sessions. It proves its
// session with what would be good for a discharge; nothing is discharged,
// confirmed or noted because of it, and no policy is asked.

// OwnSessions lists the live sessions of the user whose session is presented,
// the most recently used first, and says which of them that is. It asks for
// what a refresh would ask for, and leaves a refresh token as it is.
func (s *Service) OwnSessions(ctx context.Context, req *Request) (own caveat.SessionID, list []SessionInfo, err error) {
	a, err := s.begin(OpOwnSessions, req)
	if err == nil {
		list, err = s.ownSessions(ctx, a)
	}
	return a.cond.Session, list, s.finish(ctx, a, err)
}

func (s *Service) ownSessions(ctx context.Context, a *attempt) ([]SessionInfo, error) {
	st, _, err := s.load(ctx, a)
	if err != nil {
		return nil, err
	}
	if err := s.prove(a, st); err != nil {
		return nil, err
	}
	live, _, err := s.list(ctx, a.user, st.Homeserver, a.event.Now)
	if err != nil {
		return nil, err
	}
	return infos(live), nil
}

// RevokeOwn ends a session of the user whose session is presented: another one,
// or itself, which is [Service.Logout]. What is not a session of that user is
// left alone, and no error.
func (s *Service) RevokeOwn(ctx context.Context, req *Request, session caveat.SessionID) error {
	a, err := s.begin(OpRevokeOwn, req)
	switch {
	case err != nil:
	case session == a.cond.Session:
		a.event.Kind = EventLogout
		err = s.logout(ctx, a)
	default:
		err = s.attempt(ctx, a, func(st State, _ View) (edit, error) { return s.revokeOwn(ctx, a, st, session) })
	}
	return s.finish(ctx, a, err)
}

// revokeOwn looks for the session among the user's own: its id alone must not
// be enough to end it, or to have the feed say so.
func (s *Service) revokeOwn(ctx context.Context, a *attempt, st State, session caveat.SessionID) (edit, error) {
	if err := s.prove(a, st); err != nil {
		return edit{}, err
	}
	live, gone, err := s.list(ctx, a.user, st.Homeserver, a.event.Now)
	if err != nil {
		return edit{}, err
	}
	for _, o := range live {
		if o.id == session {
			var ed edit
			err := s.end(&ed, a, o, causeLogout)
			return ed, err
		}
	}
	for _, o := range gone {
		if o.id == session {
			return edit{revoked: s.remains(a, []stored{o})}, nil
		}
	}
	return edit{}, nil
}

// prove refuses what would get no discharge. A token that only shows that
// somebody has a copy of it is refused too, and has no other consequence here.
func (s *Service) prove(a *attempt, st State) error {
	o := Step(st, &a.event, s.cfg.Limits)
	switch {
	case o.NotYet:
		return unavailable(fmt.Errorf("caveat minted at %d is from the future", a.cond.Minted))
	case o.Reason == ReasonTokenReused:
		return &Refusal{Reason: ReasonTokenSuperseded}
	case o.Reason != "":
		return &Refusal{Reason: o.Reason, SoftLogout: o.SoftLogout}
	}
	return nil
}
