package discharger

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// SessionInfo is what a user or a homeserver may know of a live session, to
// tell it from the others.
type SessionInfo struct {
	ID       caveat.SessionID
	Device   string
	Mode     caveat.Mode
	Policy   string // as in the condition; "" is the homeserver's
	Created  time.Time
	LastUsed time.Time // in modes open and held up to an hour older than the truth
	First    Party
	Last     Party
	Epoch    uint64 // mode rotate only
	Labels   map[string]string
}

// Sessions lists the live sessions of a user, the most recently used first.
// Those that were minted but not activated are not known here.
func (s *Service) Sessions(ctx context.Context, user UserKey) ([]SessionInfo, error) {
	a := s.about(OpList, user, caveat.SessionID{})
	var live []stored
	state, _, err := s.load(ctx, a)
	if err == nil {
		live, _, err = s.list(ctx, user, state.Homeserver, a.event.Now)
	}
	return infos(live), s.finish(ctx, a, err)
}

// infos is what may be known of listed sessions.
func infos(live []stored) []SessionInfo {
	out := make([]SessionInfo, 0, len(live))
	for _, o := range live {
		r := &o.record
		out = append(out, SessionInfo{
			ID: o.id, Device: r.Device, Mode: r.Mode, Policy: r.Policy, Created: utc(r.Created), LastUsed: utc(r.LastUsed),
			First: r.First, Last: r.Last, Epoch: r.Confirmed.Epoch, Labels: maps.Clone(r.Labels),
		})
	}
	return out
}

// Seen notes that a homeserver saw a discharge of this epoch in use, which
// confirms that the refresh token handed out with it has arrived. Reports
// about sessions or epochs that are gone are no error.
func (s *Service) Seen(ctx context.Context, user UserKey, session caveat.SessionID, epoch uint64) error {
	a := s.about(OpSeen, user, session)
	return s.finish(ctx, a, s.attempt(ctx, a, func(st State, v View) (edit, error) {
		changes, err := s.changeSession(a, v, Seen(st, epoch, a.event.Now))
		return edit{changes: changes}, err
	}))
}

// Revoke ends one session of a user, by order of the homeserver or an
// operator, whether it has been activated yet or not. Revoking a session that
// does not exist is no error.
func (s *Service) Revoke(ctx context.Context, user UserKey, session caveat.SessionID) error {
	a := s.about(OpRevoke, user, session)
	if session == (caveat.SessionID{}) { // which stands for the user's own record
		return s.finish(ctx, a, badRequest(errNoSession))
	}
	return s.finish(ctx, a, s.attempt(ctx, a, func(st State, v View) (edit, error) {
		r := st.Session
		if r == nil {
			r = &Record{}
		}
		if r.Ended > 0 {
			changes, err := s.repeat(a, st, v)
			return edit{changes, s.again(a, st, causeRevoked)}, err
		}
		changes, err := s.changeSession(a, v, r.ended(a.event.Now))
		e := a.revoked(session, causeRevoked)
		e.device = r.Device
		return edit{changes, []revoked{e}}, err
	}))
}

// RevokeUser ends every session of a user but one, or all of them if except
// is zero, in one write however many there are. Sessions that were minted by
// now and not activated are ended too, the excepted one included.
func (s *Service) RevokeUser(ctx context.Context, user UserKey, except caveat.SessionID) error {
	a := s.about(OpRevokeUser, user, except)
	return s.finish(ctx, a, s.attempt(ctx, a, func(st State, v View) (edit, error) {
		next := &Revocation{Generation: st.User.Generation + 1, At: max(a.event.Now, st.User.At+1)}
		var keep []Change
		if except != (caveat.SessionID{}) && st.Session != nil && alive(st) {
			next.Except = except
			kept := *st.Session
			kept.UserGeneration = next.Generation
			var err error
			if keep, err = s.changeSession(a, v, &kept); err != nil {
				return edit{}, err
			}
		}
		changes, err := s.changeUser(v, next)
		return edit{append(changes, keep...), []revoked{revokedUser(user, *next, causeRevoked)}}, err
	}))
}

// RevokeDevice ends every session of a user's device but one, or all of them
// if except is zero.
func (s *Service) RevokeDevice(ctx context.Context, user UserKey, device string, except caveat.SessionID) error {
	a := s.about(OpRevokeDevice, user, except)
	return s.finish(ctx, a, s.attempt(ctx, a, func(st State, _ View) (edit, error) {
		live, gone, err := s.list(ctx, user, st.Homeserver, a.event.Now)
		if err != nil {
			return edit{}, err
		}
		// A session that has ended no longer has a device: it may be one of
		// those that this call ended when it was made before.
		ed := edit{s.repeatAll(a, gone), s.remains(a, gone)}
		for _, o := range live {
			if o.record.Device != device || o.id == except {
				continue
			}
			if err := s.end(&ed, a, o, causeRevoked); err != nil {
				return edit{}, err
			}
		}
		return ed, nil
	}))
}

// RevokeHomeserver ends every session of a homeserver, activated or not, in
// one write. It returns when no service that shares the store can still take
// one of them for alive.
func (s *Service) RevokeHomeserver(ctx context.Context, homeserver string) error {
	a := s.about(OpRevokeHomeserver, UserKey{Homeserver: homeserver}, caveat.SessionID{})
	return s.finish(ctx, a, s.revokeHomeserver(ctx, a))
}

func (s *Service) revokeHomeserver(ctx context.Context, a *attempt) error {
	for range maxRetries {
		state, view, err := s.load(ctx, a)
		if err != nil {
			return err
		}
		next := Revocation{Generation: state.Homeserver.Generation + 1, At: max(a.event.Now, state.Homeserver.At+1)}
		b, err := next.MarshalBinary()
		if err != nil {
			return unavailable(err)
		}
		event, err := s.announcer.write(&revoked{
			homeserver: a.user.Homeserver, all: true, before: next.At + 1, at: next.At, cause: causeRevoked,
		})
		if err != nil {
			return unavailable(err)
		}
		done, err := s.cfg.Store.SwapHomeserver(ctx, a.user.Homeserver, view.Homeserver, b, event)
		if err != nil {
			return unavailable(fmt.Errorf("swap homeserver: %w", err))
		}
		if done {
			return nil
		}
		a.obs.Retries++
	}
	return errContention
}

var errNoSession = errors.New("a session's id is not all zeros")

var errContention = unavailable(errors.New("too many concurrent requests for one session"))

// edit is what an attempt wants stored, and what the feed has to say of it.
// Without changes, it is to be said all the same.
type edit struct {
	changes []Change
	revoked []revoked
}

// attempt makes what change says of the records true, starting over for as
// long as others change them meanwhile. An empty edit means that all is well.
func (s *Service) attempt(ctx context.Context, a *attempt, change func(State, View) (edit, error)) error {
	for range maxRevokeRetries {
		state, view, err := s.load(ctx, a)
		if err != nil {
			return err
		}
		ed, err := change(state, view)
		var refused *Refusal
		switch {
		case errors.As(err, &refused):
			return err
		case err != nil:
			return unavailable(err)
		}
		if len(ed.changes) == 0 {
			return s.announce(ctx, a.user.Homeserver, ed.revoked)
		}
		done, err := s.swap(ctx, a, ed)
		if err != nil || done {
			return err
		}
		a.obs.Retries++
	}
	return errContention
}

// swap has the store make an edit. It reports false if the records have
// changed since they were read.
func (s *Service) swap(ctx context.Context, a *attempt, ed edit) (bool, error) {
	events, err := s.events(ed.revoked)
	if err != nil {
		return false, unavailable(err)
	}
	done, err := s.cfg.Store.Swap(ctx, Write{User: a.user, Changes: ed.changes, Revokes: len(events) > 0 || a.repeats, Events: events})
	if err != nil {
		return false, unavailable(fmt.Errorf("swap session: %w", err))
	}
	if done {
		s.announced.add(ed.revoked)
	}
	return done, nil
}

// changeUser is the change of a user's own record.
func (s *Service) changeUser(v View, next *Revocation) ([]Change, error) {
	b, err := next.MarshalBinary()
	keep := s.cfg.Limits.Activation + s.cfg.Limits.Skew + tombstoneSlack
	return []Change{{Old: v.User, New: b, Expires: time.UnixMilli(next.At).Add(keep)}}, err
}

// changeSession is the change of the attempt's session; no record, no change.
// The condition is not known here. It was minted no later than now, which
// makes the store keep the record longer rather than shorter.
func (s *Service) changeSession(a *attempt, v View, next *Record) ([]Change, error) {
	if next == nil {
		return nil, nil
	}
	b, err := next.MarshalBinary()
	known := caveat.Condition{Minted: a.event.Now}
	return []Change{{Session: a.cond.Session, Old: v.Session, New: b, Expires: Expires(next, &known, s.cfg.Limits)}}, err
}

// about starts an attempt that no caveat came with.
func (s *Service) about(op Op, user UserKey, session caveat.SessionID) *attempt {
	now := s.cfg.Now()
	a := &attempt{now: now, user: user, event: Event{Now: now.UnixMilli()}}
	a.cond.Session, a.cond.User, a.opened.Homeserver = session, user.User, user.Homeserver
	a.obs = Observation{Op: op, Homeserver: user.Homeserver, Session: session}
	return a
}

// list returns the live sessions of a user, the most recently used first, and
// what is left of those that were ended one by one.
func (s *Service) list(ctx context.Context, user UserKey, homeserver Revocation, now int64) (live, gone []stored, err error) {
	l, err := s.cfg.Store.List(ctx, user)
	if err != nil {
		return nil, nil, unavailable(fmt.Errorf("list sessions: %w", err))
	}
	st := State{Homeserver: homeserver}
	if err := st.User.UnmarshalBinary(l.User); err != nil {
		return nil, nil, unavailable(err)
	}
	live = make([]stored, 0, len(l.Sessions))
	for id, raw := range l.Sessions {
		o := stored{id: id, raw: raw}
		if err := o.record.UnmarshalBinary(raw); err != nil {
			return nil, nil, unavailable(err)
		}
		st.Session = &o.record
		switch {
		case o.record.Ended > 0:
			gone = append(gone, o)
		case alive(st) && !idle(&o.record, &Event{Now: now}, s.cfg.Limits):
			live = append(live, o)
		}
	}
	slices.SortFunc(live, func(x, y stored) int {
		return cmp.Or(cmp.Compare(y.record.lastUse(), x.record.lastUse()), cmp.Compare(x.id.String(), y.id.String()))
	})
	return live, gone, nil
}

// end adds to an edit what ends a listed session.
func (s *Service) end(ed *edit, a *attempt, o stored, why cause) error {
	tomb := o.record.ended(a.event.Now)
	b, err := tomb.MarshalBinary()
	if err != nil {
		return unavailable(err)
	}
	known := caveat.Condition{Minted: o.record.Created}
	ed.changes = append(ed.changes, Change{Session: o.id, Old: o.raw, New: b, Expires: Expires(tomb, &known, s.cfg.Limits)})
	e := a.revoked(o.id, why)
	e.device = o.record.Device
	ed.revoked = append(ed.revoked, e)
	return nil
}

// remains says what has to be announced of sessions that were found to be over.
func (s *Service) remains(a *attempt, gone []stored) []revoked {
	var out []revoked
	for _, o := range gone {
		e := a.revoked(o.id, causeAgain)
		e.at = o.record.Ended
		out = append(out, s.unannounced(e, a.now)...)
	}
	return out
}

// revoked is the event of one of the user's sessions, ended now.
func (a *attempt) revoked(session caveat.SessionID, why cause) revoked {
	e := revoked{homeserver: a.user.Homeserver, session: session, at: a.event.Now, cause: why, owner: a.user.User}
	if session == a.cond.Session {
		e.device = a.cond.Device // "" where no caveat came with the request
	}
	return e
}
