package discharger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
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
	op, kind := OpLogout, EventLogout
	if scope == ScopeUser {
		op, kind = OpLogoutAll, EventLogoutAll
	}
	a, err := s.begin(op, req)
	a.event.Kind = kind
	if err == nil {
		err = s.logout(ctx, a)
	}
	return s.finish(ctx, a, err)
}

func (s *Service) logout(ctx context.Context, a *attempt) error {
	for range maxRetries {
		state, view, err := s.load(ctx, a)
		if err != nil {
			return err
		}
		ruling, err := s.decide(ctx, a, state)
		if err != nil {
			return err
		}
		if ruling.Reason != "" {
			return refusal(&ruling)
		}
		done, err := s.store(ctx, a, &ruling, view)
		if err != nil || done {
			return err
		}
		a.obs.Retries++
	}
	return unavailable(errors.New("too many concurrent requests for one session"))
}

// Seen notes that a homeserver saw a discharge of this epoch in use, which
// confirms that the refresh token handed out with it has arrived. Reports
// about sessions or epochs that are gone are no error.
func (s *Service) Seen(ctx context.Context, user UserKey, session caveat.SessionID, epoch uint64) error {
	a := s.about(OpSeen, user, session)
	return s.finish(ctx, a, s.edit(ctx, a, func(st State) *Record { return Seen(st, epoch, a.event.Now) }))
}

// Revoke ends one session of a user, by order of the homeserver or an
// operator, whether it has been activated yet or not. Revoking a session that
// does not exist is no error.
func (s *Service) Revoke(ctx context.Context, user UserKey, session caveat.SessionID) error {
	a := s.about(OpRevoke, user, session)
	return s.finish(ctx, a, s.edit(ctx, a, func(st State) *Record {
		r := st.Session
		if r == nil {
			r = &Record{}
		}
		if r.Ended > 0 {
			return nil
		}
		return r.ended(a.event.Now)
	}))
}

// about starts an attempt that no caveat came with.
func (s *Service) about(op Op, user UserKey, session caveat.SessionID) *attempt {
	now := s.cfg.Now()
	a := &attempt{now: now, user: user, event: Event{Now: now.UnixMilli()}}
	a.cond.Session, a.cond.User, a.opened.Homeserver = session, user.User, user.Homeserver
	a.obs = Observation{Op: op, Homeserver: user.Homeserver, Session: session}
	return a
}

// edit changes a session's record, keeping until when the store has it.
func (s *Service) edit(ctx context.Context, a *attempt, change func(State) *Record) error {
	for range maxRetries {
		state, view, err := s.load(ctx, a)
		if err != nil {
			return err
		}
		next := change(state)
		if next == nil {
			return nil
		}
		b, err := next.MarshalBinary()
		if err != nil {
			return unavailable(err)
		}
		// The condition is not known here. It was minted no later than now,
		// which makes the store keep the record longer rather than shorter.
		known := caveat.Condition{Minted: a.event.Now}
		done, err := s.cfg.Store.Swap(ctx, Write{User: a.user, Revokes: next.Ended > 0, Changes: []Change{{
			Session: a.cond.Session, Old: view.Session, New: b, Expires: Expires(next, &known, s.cfg.Limits),
		}}})
		if err != nil {
			return unavailable(err)
		}
		if done {
			return nil
		}
		a.obs.Retries++
	}
	return unavailable(errors.New("too many concurrent requests for one session"))
}

// list returns the live sessions of a user, the most recently used first.
func (s *Service) list(ctx context.Context, user UserKey, homeserver Revocation, now int64) ([]stored, error) {
	l, err := s.cfg.Store.List(ctx, user)
	if err != nil {
		return nil, unavailable(fmt.Errorf("list sessions: %w", err))
	}
	st := State{Homeserver: homeserver}
	if err := st.User.UnmarshalBinary(l.User); err != nil {
		return nil, unavailable(err)
	}
	out := make([]stored, 0, len(l.Sessions))
	for id, raw := range l.Sessions {
		o := stored{id: id, raw: raw}
		if err := o.record.UnmarshalBinary(raw); err != nil {
			return nil, unavailable(err)
		}
		st.Session = &o.record
		if alive(st) && !idle(&o.record, &Event{Now: now}, s.cfg.Limits) {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(x, y stored) int {
		return cmp.Or(cmp.Compare(y.record.LastUsed, x.record.LastUsed), cmp.Compare(x.id.String(), y.id.String()))
	})
	return out, nil
}

// tombstone is the change that ends a listed session.
func (s *Service) tombstone(o stored, now int64) (Change, error) {
	end := o.record.ended(now)
	b, err := end.MarshalBinary()
	if err != nil {
		return Change{}, unavailable(err)
	}
	known := caveat.Condition{Minted: o.record.Created}
	return Change{Session: o.id, Old: o.raw, New: b, Expires: Expires(end, &known, s.cfg.Limits)}, nil
}
