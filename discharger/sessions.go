package discharger

import (
	"cmp"
	"context"
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

// SessionInfo describes a live session to its user or homeserver.
type SessionInfo struct {
	ID       caveat.SessionID
	Device   string
	Mode     caveat.Mode
	Policy   string // name in the condition; empty: the homeserver's policy
	Created  time.Time
	LastUsed time.Time // in modes open and held up to an hour too early
	First    session.Party
	Last     session.Party
	Epoch    uint64 // mode rotate only
	Labels   map[string]string
}

// EndedSession is the tombstone of a session.
type EndedSession struct {
	ID     caveat.SessionID
	Device string // empty: none, or the session was ended by an earlier version
	End    revocation.End
}

// Sessions lists the live sessions of a user, the most recently used first.
// Sessions that are minted but not activated are not included.
func (s *Service) Sessions(ctx context.Context, user store.UserKey) ([]SessionInfo, error) {
	return read(ctx, s, user, func(op *operation, rec *records) ([]SessionInfo, error) {
		live, _, err := s.list(ctx, op, rec)
		return infos(live), err
	})
}

// EndedSessions lists the ended sessions of a user, the latest first, as long as
// their records are kept.
func (s *Service) EndedSessions(ctx context.Context, user store.UserKey) ([]EndedSession, error) {
	return read(ctx, s, user, func(_ *operation, rec *records) ([]EndedSession, error) {
		return s.endedSessions(ctx, user, rec.State)
	})
}

// read makes an operation that reads about a user.
func read[T any](ctx context.Context, s *Service, user store.UserKey, from func(*operation, *records) (T, error)) (out T, err error) {
	a := s.newAdminOp(OpList, user, caveat.SessionID{}, Order{})
	rec, err := s.load(ctx, &a.operation)
	if err == nil {
		out, err = from(&a.operation, &rec)
	}
	return out, s.finish(ctx, &a.operation, err)
}

func (s *Service) endedSessions(ctx context.Context, user store.UserKey, st session.State) ([]EndedSession, error) {
	l, err := s.cfg.Store.List(ctx, user)
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

func infos(live []stored) []SessionInfo {
	out := make([]SessionInfo, 0, len(live))
	for _, x := range live {
		r := &x.record
		out = append(out, SessionInfo{
			ID: x.id, Device: r.Device, Mode: r.Mode, Policy: r.Policy, Created: utc(r.Created), LastUsed: utc(r.LastUsed),
			First: r.First.Shown(), Last: r.Last.Shown(), Epoch: r.Confirmed.Epoch, Labels: maps.Clone(r.Labels),
		})
	}
	return out
}

// Seen records a homeserver's report that a discharge of this epoch is in use, so
// that the refresh token issued with it has arrived. A report about an unknown
// session or epoch is no error.
func (s *Service) Seen(ctx context.Context, user store.UserKey, id caveat.SessionID, epoch uint64) error {
	a := s.newAdminOp(OpSeen, user, id, Order{})
	now := a.now.UnixMilli()
	return s.finish(ctx, &a.operation, s.retry(ctx, &a.operation, func(rec *records) (ed edit, err error) {
		if next := session.Seen(rec.State, epoch, now); next != nil {
			err = s.changeSession(&ed, &a.operation, stored{id: id, raw: rec.view.Session}, next, &caveat.Condition{Minted: now})
		}
		return ed, err
	}))
}

// stored is a session's record with its stored form.
type stored struct {
	id     caveat.SessionID
	raw    []byte
	record session.Record
}

// list returns the live sessions of the operation's user, the most recently used
// first, and the tombstones. An unreadable record is an error.
func (s *Service) list(ctx context.Context, op *operation, rec *records) (live, ended []stored, err error) {
	live, ended, unreadable, err := s.listAll(ctx, op, rec)
	if err == nil && unreadable != nil {
		return nil, nil, unavailable(unreadable)
	}
	return live, ended, err
}

// listReadable does the same as list, but logs and skips unreadable records.
func (s *Service) listReadable(ctx context.Context, op *operation, rec *records) (live, ended []stored, err error) {
	live, ended, unreadable, err := s.listAll(ctx, op, rec)
	if err == nil && unreadable != nil {
		s.cfg.Log.LogAttrs(ctx, slog.LevelError, "session record unreadable, skipped", op.attrs(slog.Any("error", unreadable))...)
	}
	return live, ended, err
}

func (s *Service) listAll(ctx context.Context, op *operation, rec *records) (live, ended []stored, unreadable, err error) {
	l, err := s.cfg.Store.List(ctx, op.user)
	if err != nil {
		return nil, nil, nil, unavailable(fmt.Errorf("list sessions: %w", err))
	}
	rec.listing = l
	st := session.State{Homeserver: rec.Homeserver}
	if err := st.User.UnmarshalBinary(l.User); err != nil {
		return nil, nil, nil, unavailable(err)
	}
	live = make([]stored, 0, len(l.Sessions))
	for id, raw := range l.Sessions {
		x := stored{id: id, raw: raw}
		if err := x.record.UnmarshalBinary(raw); err != nil {
			unreadable = err
			continue
		}
		st.Session = &x.record
		_, over := st.Ended()
		switch {
		case x.record.Over():
			ended = append(ended, x)
		case !over && !x.record.Idle(op.now.UnixMilli(), s.cfg.Limits):
			live = append(live, x)
		}
	}
	slices.SortFunc(live, func(x, y stored) int {
		return cmp.Or(cmp.Compare(y.record.LastUse(), x.record.LastUse()), cmp.Compare(x.id.String(), y.id.String()))
	})
	return live, ended, unreadable, nil
}
