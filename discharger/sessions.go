package discharger

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
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
	First    session.Party
	Last     session.Party
	Epoch    uint64 // mode rotate only
	Labels   map[string]string
}

// EndedSession is what a store remembers of a session that ended.
type EndedSession struct {
	ID     caveat.SessionID
	Device string // "" if it had none, or an earlier version ended it
	End    revocation.End
}

// Sessions lists the live sessions of a user, the most recently used first.
// Those that were minted but not activated are not known here.
func (s *Service) Sessions(ctx context.Context, user store.UserKey) ([]SessionInfo, error) {
	a := s.about(OpList, user, caveat.SessionID{})
	var live []stored
	state, _, err := s.load(ctx, a)
	if err == nil {
		live, _, err = s.list(ctx, a, state.Homeserver)
	}
	return infos(live), s.finish(ctx, a, err)
}

// EndedSessions lists the sessions of a user that ended and are remembered, the
// latest first. Sessions that ended with all of the user's or the homeserver's
// are among them as long as their records are kept.
func (s *Service) EndedSessions(ctx context.Context, user store.UserKey) ([]EndedSession, error) {
	a := s.about(OpList, user, caveat.SessionID{})
	var out []EndedSession
	state, _, err := s.load(ctx, a)
	if err == nil {
		out, err = s.endedSessions(ctx, a, state)
	}
	return out, s.finish(ctx, a, err)
}

func (s *Service) endedSessions(ctx context.Context, a *attempt, st session.State) ([]EndedSession, error) {
	l, err := s.cfg.Store.List(ctx, a.user)
	if err != nil {
		return nil, unavailable(fmt.Errorf("list sessions: %w", err))
	}
	if err := st.User.UnmarshalBinary(l.User); err != nil {
		return nil, unavailable(err)
	}
	var out []EndedSession
	for id, raw := range l.Sessions {
		var r session.Record
		if err := r.UnmarshalBinary(raw); err != nil {
			return nil, unavailable(err)
		}
		st.Session = &r
		if end, over := st.Ended(); over {
			out = append(out, EndedSession{ID: id, Device: r.Device, End: end})
		}
	}
	slices.SortFunc(out, func(x, y EndedSession) int {
		return cmp.Or(cmp.Compare(y.End.At, x.End.At), cmp.Compare(x.ID.String(), y.ID.String()))
	})
	return out, nil
}

// infos is what may be known of listed sessions.
func infos(live []stored) []SessionInfo {
	out := make([]SessionInfo, 0, len(live))
	for _, o := range live {
		r := &o.record
		out = append(out, SessionInfo{
			ID: o.id, Device: r.Device, Mode: r.Mode, Policy: r.Policy, Created: utc(r.Created), LastUsed: utc(r.LastUsed),
			First: r.First.Shown(), Last: r.Last.Shown(), Epoch: r.Confirmed.Epoch, Labels: maps.Clone(r.Labels),
		})
	}
	return out
}

// Seen notes that a homeserver saw a discharge of this epoch in use, which
// confirms that the refresh token handed out with it has arrived. Reports
// about sessions or epochs that are gone are no error.
func (s *Service) Seen(ctx context.Context, user store.UserKey, id caveat.SessionID, epoch uint64) error {
	a := s.about(OpSeen, user, id)
	return s.finish(ctx, a, s.attempt(ctx, a, func(st session.State, v store.View) (ed edit, err error) {
		if next := session.Seen(st, epoch, a.event.Now); next != nil {
			err = s.changeSession(&ed, a, id, v.Session, next, a.event.Now)
		}
		return ed, err
	}))
}

var errNoSession = errors.New("a session's id is not all zeros")

var errContention = unavailable(errors.New("too many concurrent requests for one session"))

// edit is a write to be made, and its events. Without changes, the events are
// published all the same.
type edit struct {
	changes     []store.Change
	revocations []revocation.Revocation
	revoked     []revoked
}

// attempt makes the changes that change returns, starting over for as long as
// other requests change the records meanwhile. An empty edit means that there is
// nothing to do.
func (s *Service) attempt(ctx context.Context, a *attempt, change func(session.State, store.View) (edit, error)) error {
	for range maxRevokeRetries {
		state, view, err := s.load(ctx, a)
		if err != nil {
			return err
		}
		ed, err := change(state, view)
		var refused *Refusal
		switch {
		case errors.As(err, &refused), errors.Is(err, ErrBadRequest):
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
	done, err := s.cfg.Store.Swap(ctx, store.Write{User: a.user, Changes: ed.changes, Revocations: ed.revocations, Events: events})
	if err != nil {
		return false, unavailable(fmt.Errorf("swap session: %w", err))
	}
	if done {
		s.published(ed.revoked)
	}
	return done, nil
}

// keepMark is how long a mark is needed: no session that it covers can be
// activated later.
func (s *Service) keepMark(at int64) time.Time {
	return time.UnixMilli(at).Add(s.cfg.Limits.Activation + s.cfg.Limits.Skew + session.TombstoneSlack)
}

// changeUser adds the change of a user's own record to an edit.
func (s *Service) changeUser(ed *edit, user store.UserKey, v store.View, next *session.GenerationRecord) error {
	b, err := next.MarshalBinary()
	if err != nil {
		return err
	}
	expires := s.keepMark(next.At)
	ed.changes = append(ed.changes, store.Change{Old: v.User, New: b, Expires: expires})
	ed.revocations = append(ed.revocations, session.RevokedUser(user, next, expires))
	ed.revoked = append(ed.revoked, revokedUser(user, *next))
	return nil
}

// changeDevice adds the change of a device's record to an edit.
func (s *Service) changeDevice(ed *edit, a *attempt, old []byte, next *session.DeviceRecord) error {
	b, err := next.MarshalBinary()
	if err != nil || bytes.Equal(b, old) {
		return err
	}
	ed.changes = append(ed.changes, store.Change{Device: a.device, Old: old, New: b, Expires: s.keepMark(max(next.Since, next.Revoked))})
	return nil
}

// maxDropped bounds how many records of devices one activation removes.
const maxDropped = 16

// dropDevices adds to an activation's edit what removes records of devices whose
// session is gone and whose mark is not needed any more.
func (s *Service) dropDevices(ed *edit, a *attempt) {
	dropped := 0
	for tag, raw := range a.listing.Devices {
		var d session.DeviceRecord
		if err := d.UnmarshalBinary(raw); err != nil || tag == a.device || dropped == maxDropped {
			continue
		}
		_, kept := a.listing.Sessions[d.Current]
		if kept || s.keepMark(max(d.Revoked, d.Since)).After(a.now) {
			continue
		}
		dropped++
		ed.changes = append(ed.changes, store.Change{Device: tag, Old: raw})
	}
}

// changeSession adds the change of a session's record to an edit. Minted is when
// the session was minted at the latest.
func (s *Service) changeSession(ed *edit, a *attempt, id caveat.SessionID, old []byte, next *session.Record, minted int64) error {
	b, err := next.MarshalBinary()
	if err != nil {
		return err
	}
	known := caveat.Condition{Minted: minted}
	if id == a.cond.Session && a.cond.Minted != 0 {
		known = a.cond
	}
	expires := session.Expires(next, &known, s.cfg.Limits)
	ed.changes = append(ed.changes, store.Change{Session: id, Old: old, New: b, Expires: expires})
	if next.Over() {
		ed.revocations = append(ed.revocations, session.RevokedSession(a.user, id, next, expires))
		ed.revoked = append(ed.revoked, revokedSession(a.user, id, next))
	}
	return nil
}

// end adds to an edit what ends a listed session.
func (s *Service) end(ed *edit, a *attempt, o stored, end revocation.End) error {
	return s.changeSession(ed, a, o.id, o.raw, o.record.Tombstone(end), o.record.Created)
}

// about starts an attempt that no caveat came with.
func (s *Service) about(op Op, user store.UserKey, id caveat.SessionID) *attempt {
	now := s.cfg.Now()
	a := &attempt{now: now, user: user, event: session.Event{Now: now.UnixMilli()}}
	a.cond.Session, a.cond.User, a.opened.Homeserver = id, user.User, user.Homeserver
	a.obs = Observation{Op: op, Homeserver: user.Homeserver, Session: id}
	return a
}

// list returns the live sessions of the attempt's user, the most recently used
// first, and what is left of those that were ended one by one.
func (s *Service) list(ctx context.Context, a *attempt, homeserver session.GenerationRecord) (live, gone []stored, err error) {
	live, gone, unreadable, err := s.listAll(ctx, a, homeserver)
	if err == nil && unreadable != nil {
		return nil, nil, unavailable(unreadable)
	}
	return live, gone, err
}

// listReadable does the same, but leaves out records that cannot be read.
func (s *Service) listReadable(ctx context.Context, a *attempt, homeserver session.GenerationRecord) (live, gone []stored, err error) {
	live, gone, unreadable, err := s.listAll(ctx, a, homeserver)
	if err == nil && unreadable != nil {
		s.cfg.Log.LogAttrs(ctx, slog.LevelError, "session record is unreadable", a.attrs(slog.Any("error", unreadable))...)
	}
	return live, gone, err
}

func (s *Service) listAll(ctx context.Context, a *attempt, homeserver session.GenerationRecord) (live, gone []stored, unreadable, err error) {
	l, err := s.cfg.Store.List(ctx, a.user)
	if err != nil {
		return nil, nil, nil, unavailable(fmt.Errorf("list sessions: %w", err))
	}
	a.listing = l
	st := session.State{Homeserver: homeserver}
	if err := st.User.UnmarshalBinary(l.User); err != nil {
		return nil, nil, nil, unavailable(err)
	}
	live = make([]stored, 0, len(l.Sessions))
	for id, raw := range l.Sessions {
		o := stored{id: id, raw: raw}
		if err := o.record.UnmarshalBinary(raw); err != nil {
			unreadable = err
			continue
		}
		st.Session = &o.record
		_, over := st.Ended()
		switch {
		case o.record.Over():
			gone = append(gone, o)
		case !over && !o.record.Idle(a.event.Now, s.cfg.Limits):
			live = append(live, o)
		}
	}
	slices.SortFunc(live, func(x, y stored) int {
		return cmp.Or(cmp.Compare(y.record.LastUse(), x.record.LastUse()), cmp.Compare(x.id.String(), y.id.String()))
	})
	return live, gone, unreadable, nil
}

// remains returns the events to be published of sessions that were found to be over.
func (s *Service) remains(a *attempt, gone []stored) []revoked {
	var out []revoked
	for _, o := range gone {
		e := revokedSession(a.user, o.id, &o.record)
		e.cause = revocation.CauseAgain
		out = append(out, s.unannounced(e, a.now)...)
	}
	return out
}
