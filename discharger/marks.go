package discharger

import (
	"context"
	"fmt"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// Marks are the revocation marks of a user, its devices and its homeserver: the
// times until which minted sessions without a record are revoked.
type Marks struct {
	User, Homeserver time.Time // zero: none
	Device           time.Time // the latest of the user's devices; zero: none
	Now              time.Time // of the store
}

// Marks returns the marks that concern a user. A mark after Now was made by a wrong
// clock; logins that it covers are undecided until then.
func (s *Service) Marks(ctx context.Context, user store.UserKey) (Marks, error) {
	return read(ctx, s, user, func(_ *operation, rec *records) (Marks, error) {
		devices, err := s.deviceMarks(ctx, user, rec)
		if err != nil {
			return Marks{}, err
		}
		now, err := s.storeNow(ctx)
		if err != nil {
			return Marks{}, err
		}
		latest := int64(0)
		for _, d := range devices {
			latest = max(latest, d.Revoked)
		}
		return Marks{User: markTime(rec.User.At), Homeserver: markTime(rec.Homeserver.At), Device: markTime(latest), Now: utc(now)}, nil
	})
}

// deviceMarks lists the records of the user's devices.
func (s *Service) deviceMarks(ctx context.Context, user store.UserKey, rec *records) (map[revocation.DeviceTag]session.DeviceRecord, error) {
	if user.User == "" {
		return nil, nil
	}
	l, err := s.cfg.Store.List(ctx, user)
	if err != nil {
		return nil, unavailable(fmt.Errorf("list devices: %w", err))
	}
	rec.listing = l
	out := make(map[revocation.DeviceTag]session.DeviceRecord, len(l.Devices))
	for tag, raw := range l.Devices {
		var d session.DeviceRecord
		if err := d.UnmarshalBinary(raw); err != nil {
			return nil, unavailable(err)
		}
		out[tag] = d
	}
	return out, nil
}

func markTime(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return utc(ms)
}

// LiftMarks sets future marks of a user, its devices and its homeserver to the
// store's time, and returns their number. Sessions that they revoked stay revoked.
// With an empty user it lifts only the homeserver's.
func (s *Service) LiftMarks(ctx context.Context, user store.UserKey) (lifted int, err error) {
	a := s.newAdminOp(OpLiftMarks, user, caveat.SessionID{}, Order{})
	err = errContention
	for range maxRetries {
		var done bool
		if lifted, done, err = s.liftMarks(ctx, a); err != nil || done {
			break
		}
		err = errContention
	}
	return lifted, s.finish(ctx, &a.operation, err)
}

func (s *Service) liftMarks(ctx context.Context, a *adminOp) (lifted int, done bool, err error) {
	rec, err := s.load(ctx, &a.operation)
	if err != nil {
		return 0, false, err
	}
	now, err := s.storeNow(ctx)
	if err != nil {
		return 0, false, err
	}
	if rec.Homeserver.At > now {
		next := rec.Homeserver
		next.At = now
		if done, err := s.swapHomeserver(ctx, &a.operation, rec.view.Homeserver, &next, 0); err != nil || !done {
			return 0, false, err
		}
		lifted++
	}
	if a.user.User == "" {
		return lifted, true, nil
	}
	ed, err := s.liftUser(ctx, a, &rec, now)
	if err != nil {
		return 0, false, err
	}
	done, err = s.write(ctx, &a.operation, ed)
	return lifted + len(ed.changes), done, err
}

// liftUser returns the edit that lifts marks of a user and its devices. It ends no
// session and has no event, but is journaled.
func (s *Service) liftUser(ctx context.Context, a *adminOp, rec *records, now int64) (ed edit, err error) {
	if rec.User.At > now {
		next := rec.User
		next.At, next.Covered = now, min(next.Covered, now)
		r, err := s.changeUser(&ed, &a.operation, rec.view.User, &next)
		if err != nil {
			return edit{}, unavailable(err)
		}
		r.Until = 0
	}
	devices, err := s.deviceMarks(ctx, a.user, rec)
	if err != nil {
		return edit{}, err
	}
	for tag, d := range devices {
		if d.Revoked <= now {
			continue
		}
		next := d.Lift(now)
		if err := s.changeDevice(&ed, tag, rec.listing.Devices[tag], &next); err != nil {
			return edit{}, unavailable(err)
		}
		ed.revoke(s.revokedDevice(&a.operation, tag, &next)).Generation = uint64(d.Revoked)
	}
	return ed, nil
}
