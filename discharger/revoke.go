package discharger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// Revocation by the homeserver or an operator. It also covers sessions that have
// no record yet: one by its id, those of a device or a user by a mark, which is a
// time of the store's.

// Order is how sessions are revoked. The zero value revokes hard, now, and
// without exception.
type Order struct {
	Soft bool // the clients log in again and keep their encryption keys

	// Age is how long ago the sessions ended for the caller: those that were
	// activated since are left alone. The service compares in the store's time.
	Age time.Duration

	Except       caveat.SessionID // of a user or a device: left alone; zero: none
	ExceptDevice string           // of a user: its sessions are left alone; "": none
	Devices      bool             // of a user: sessions that have no device are left alone

	// Epoch, of one session, is that of the discharge by which the client
	// proved itself: the session is refused with ReasonTokenSuperseded if it is
	// neither the newest nor the one before. 0: not looked at.
	Epoch uint64
}

// Revoked is the result of a revocation.
type Revoked struct {
	Ended  int  // sessions that it ended now
	Known  bool // the session, the device or the user is known: live or remembered
	Marked bool // sessions that were minted by now and have no record are ended too
}

func (o *Order) end(at int64) revocation.End {
	return revocation.End{Soft: o.Soft, Cause: revocation.CauseRevoked, At: at}
}

// Revoke ends one session of a user, by order of the homeserver or an
// operator, whether it has been activated yet or not. Revoking a session that
// does not exist is no error.
func (s *Service) Revoke(ctx context.Context, user store.UserKey, id caveat.SessionID, o Order) (out Revoked, err error) {
	a := s.about(OpRevoke, user, id)
	if id == (caveat.SessionID{}) { // which stands for the user's own record
		return Revoked{}, s.finish(ctx, a, badRequest(errNoSession))
	}
	err = s.attempt(ctx, a, func(st session.State, v store.View) (ed edit, err error) {
		out = Revoked{}
		r := st.Session
		if r == nil {
			out.Marked = true
			r = &session.Record{}
		} else {
			out.Known = true
			if o.Epoch > 0 && o.Epoch+1 < r.NewestEpoch() {
				return edit{}, &Refusal{Reason: session.ReasonTokenSuperseded}
			}
			if end, over := st.Ended(); over && !r.Over() {
				r = r.Tombstone(end) // by a revocation of all: it is remembered as that
			} else if !over {
				out.Ended = 1
			}
		}
		if r.Over() {
			err = s.repeatSession(&ed, a, stored{id: id, raw: v.Session, record: *r})
			ed.revoked = s.unannounced(revokedSession(user, id, r), a.now)
			return ed, err
		}
		return ed, s.changeSession(&ed, a, id, v.Session, r.Tombstone(o.end(a.event.Now)), a.event.Now)
	})
	return out, s.finish(ctx, a, err)
}

// mark returns the mark of an order, by the store's time.
func (s *Service) mark(ctx context.Context, o *Order) (int64, error) {
	now, err := s.storeNow(ctx)
	return now - max(o.Age, 0).Milliseconds(), err
}

// spared reports whether an order leaves a live session alone.
func (o *Order) spared(x *stored, mark int64) bool {
	switch r := &x.record; {
	case x.id == o.Except && x.id != caveat.SessionID{}:
		return true
	case o.ExceptDevice != "" && r.Device == o.ExceptDevice, o.Devices && r.Device == "":
		return true
	case o.Age > 0:
		return r.Created > mark // at the earliest: it is kept to the second
	}
	return false
}

// RevokeUser ends every session of a user, in one write however many there are,
// except for those that the order spares. Sessions that were minted by now and
// are not activated are ended too.
func (s *Service) RevokeUser(ctx context.Context, user store.UserKey, o Order) (out Revoked, err error) {
	a := s.about(OpRevokeUser, user, o.Except)
	err = s.attempt(ctx, a, func(st session.State, v store.View) (edit, error) {
		out = Revoked{Marked: true}
		return s.revokeUser(ctx, a, st, v, &o, &out)
	})
	return out, s.finish(ctx, a, err)
}

func (s *Service) revokeUser(ctx context.Context, a *attempt, st session.State, v store.View, o *Order, out *Revoked) (ed edit, err error) {
	mark, err := s.mark(ctx, o)
	if err != nil {
		return edit{}, err
	}
	// A record that cannot be read gets no discharge: the others end.
	live, gone, err := s.listReadable(ctx, a, st.Homeserver)
	if err != nil {
		return edit{}, err
	}
	out.Known = len(live)+len(gone) > 0 || v.User != nil
	if mark < st.User.At {
		return s.revokeEach(a, st, v, live, gone, mark, o, out)
	}
	next := st.User.Raise(mark, caveat.SessionID{}, o.end(mark))
	except := caveat.SessionID{}
	var each []revoked // what ends now
	aged := false      // a session is spared that may have been minted before the mark
	for i := range live {
		x := &live[i]
		if !o.spared(x, mark) {
			out.Ended++
			each = append(each, revokedSession(a.user, x.id, x.record.Tombstone(o.end(mark))))
			continue
		}
		aged = aged || o.Age > 0 && x.record.Created > mark
		kept := x.record
		kept.UserGeneration = next.Generation
		if err := s.changeSession(&ed, a, x.id, x.raw, &kept, a.event.Now); err != nil {
			return edit{}, err
		}
		if x.id == o.Except || except == (caveat.SessionID{}) && x.record.Device != "" && x.record.Device == o.ExceptDevice {
			except = x.id
		}
	}
	if except == (caveat.SessionID{}) && o.Except != (caveat.SessionID{}) && st.Session == nil {
		except = o.Except // its record may have been lost
	}
	next.Spare(&st.User, except, o.Devices)
	if next.Covered < mark-(s.cfg.Limits.Activation+s.cfg.Limits.Skew).Milliseconds() {
		next.Covered = 0 // that cannot be activated any more
	}
	if err := s.changeUser(&ed, a.user, v, &next); err != nil {
		return edit{}, err
	}
	if aged {
		ed.revoked = each
	}
	entry := &ed.revocations[len(ed.revocations)-1]
	for _, c := range ed.changes {
		if c.Session == next.Except && c.Session != (caveat.SessionID{}) {
			entry.ExceptKeep = session.KeepUntil(c.Expires)
		}
	}
	return ed, nil
}

// revokeEach ends a user's sessions one by one. The user was revoked later than
// the mark already: a generation would end sessions that the order spares, for
// those who compare times, and the time of the record does not go back. What has
// no record is covered by it, unless it was spared then.
func (s *Service) revokeEach(a *attempt, st session.State, v store.View, live, gone []stored, mark int64, o *Order, out *Revoked) (ed edit, err error) {
	if err := s.repeatAll(&ed, a, gone); err != nil {
		return edit{}, err
	}
	for _, x := range live {
		if o.spared(&x, mark) {
			continue
		}
		out.Ended++
		if err := s.end(&ed, a, x, o.end(a.event.Now)); err != nil {
			return edit{}, err
		}
	}
	next := st.User
	if spared := next.Devices && !o.Devices || next.Except != (caveat.SessionID{}) && next.Except != o.Except; spared && mark > next.Covered {
		next.Covered = mark
	}
	return ed, s.changeUser(&ed, a.user, v, &next)
}

// RevokeDevice ends every session of a user's device, activated or not, except
// for those that the order spares.
func (s *Service) RevokeDevice(ctx context.Context, user store.UserKey, device string, o Order) (out Revoked, err error) {
	a := s.about(OpRevokeDevice, user, o.Except)
	if device == "" {
		return Revoked{}, s.finish(ctx, a, badRequest(fmt.Errorf("device is empty")))
	}
	a.device = revocation.TagOf(device)
	err = s.attempt(ctx, a, func(st session.State, v store.View) (edit, error) {
		out = Revoked{Marked: true}
		return s.revokeDevice(ctx, a, st, v, device, &o, &out)
	})
	return out, s.finish(ctx, a, err)
}

func (s *Service) revokeDevice(ctx context.Context, a *attempt, st session.State, v store.View, device string, o *Order, out *Revoked) (ed edit, err error) {
	mark, err := s.mark(ctx, o)
	if err != nil {
		return edit{}, err
	}
	live, gone, err := s.listReadable(ctx, a, st.Homeserver)
	if err != nil {
		return edit{}, err
	}
	// An earlier version's tombstone has no device: it may be one of those that
	// this call ended when it was made before.
	gone = slices.DeleteFunc(gone, func(x stored) bool { return x.record.Device != device && x.record.Device != "" })
	out.Known = slices.ContainsFunc(gone, func(x stored) bool { return x.record.Device == device })
	if err := s.repeatAll(&ed, a, gone); err != nil {
		return edit{}, err
	}
	next, aged := st.Device, false // aged: a session is spared that may have been minted before the mark
	for i := range live {
		x := &live[i]
		if x.record.Device != device {
			continue
		}
		out.Known = true
		if o.spared(x, mark) {
			aged = aged || o.Age > 0 && x.record.Created > mark
			continue
		}
		out.Ended++
		if err := s.end(&ed, a, *x, o.end(a.event.Now)); err != nil {
			return edit{}, err
		}
	}
	next = deviceMark(next, mark, o)
	if err := s.changeDevice(&ed, a, v.Device, &next); err != nil {
		return edit{}, err
	}
	ed.revocations = append(ed.revocations, s.journalDevice(a, &next))
	if !aged {
		ed.revoked = append(ed.revoked, revokedDevice(a.user, device, &next))
	}
	return ed, nil
}

// deviceMark returns the record of a device after an order. The time of its mark
// does not go back.
func deviceMark(v session.DeviceRecord, mark int64, o *Order) session.DeviceRecord {
	if mark > v.Revoked {
		return v.Revoke(mark, o.Except, o.end(mark))
	}
	if v.Except != (caveat.SessionID{}) && v.Except != o.Except && mark > v.Covered {
		v.Cover(mark, o.end(mark))
	}
	return v
}

// RevokeHomeserver ends every session of a homeserver, activated or not, in
// one write. An order that spares any is a bad request. It returns when no
// service that shares the store can still use the homeserver's old record.
func (s *Service) RevokeHomeserver(ctx context.Context, homeserver string, o Order) error {
	a := s.about(OpRevokeHomeserver, store.UserKey{Homeserver: homeserver}, caveat.SessionID{})
	if o != (Order{Soft: o.Soft}) { // a generation spares none
		return s.finish(ctx, a, badRequest(errors.New("sessions cannot be spared when all of a homeserver's are revoked")))
	}
	return s.finish(ctx, a, s.revokeHomeserver(ctx, a, &o))
}

func (s *Service) revokeHomeserver(ctx context.Context, a *attempt, o *Order) error {
	for range maxRetries {
		state, view, err := s.load(ctx, a)
		if err != nil {
			return err
		}
		mark, err := s.mark(ctx, o)
		if err != nil {
			return err
		}
		next := state.Homeserver.Raise(mark, caveat.SessionID{}, o.end(mark))
		done, err := s.swapHomeserver(ctx, a, view, &next, true)
		if err != nil || done {
			return err
		}
		a.obs.Retries++
	}
	return errContention
}

// swapHomeserver replaces a homeserver's record, with an event if it revokes.
func (s *Service) swapHomeserver(ctx context.Context, a *attempt, v store.View, next *session.GenerationRecord, revokes bool) (bool, error) {
	b, err := next.MarshalBinary()
	if err != nil {
		return false, unavailable(err)
	}
	var events []store.FeedEvent
	if revokes {
		end := next.EndAbove(next.Generation - 1)
		event, err := s.announcer.write(&revoked{
			homeserver: a.user.Homeserver, all: true, before: next.At + 1, at: next.At, soft: end.Soft, cause: end.Cause,
		})
		if err != nil {
			return false, unavailable(err)
		}
		events = append(events, event)
	}
	done, err := s.cfg.Store.SwapHomeserver(ctx, a.user.Homeserver, v.Homeserver, b, events...)
	if err != nil {
		return false, unavailable(fmt.Errorf("swap homeserver: %w", err))
	}
	return done, nil
}

// Marks are the revocation marks of a user and of its homeserver.
type Marks struct {
	User, Homeserver time.Time // zero: none
	Device           time.Time // the latest of the user's devices; zero: none
	Now              time.Time // of the store
}

// Marks returns the marks that decide about sessions of a user which have no
// record. A mark after Now was made by a clock that was wrong, and keeps logins
// undecided until then.
func (s *Service) Marks(ctx context.Context, user store.UserKey) (m Marks, err error) {
	a := s.about(OpList, user, caveat.SessionID{})
	st, _, err := s.load(ctx, a)
	if err == nil {
		err = s.marks(ctx, a, st, &m)
	}
	return m, s.finish(ctx, a, err)
}

func (s *Service) marks(ctx context.Context, a *attempt, st session.State, m *Marks) error {
	devices, err := s.deviceMarks(ctx, a)
	if err != nil {
		return err
	}
	now, err := s.storeNow(ctx)
	if err != nil {
		return err
	}
	latest := int64(0)
	for _, d := range devices {
		latest = max(latest, d.Revoked)
	}
	*m = Marks{User: markTime(st.User.At), Homeserver: markTime(st.Homeserver.At), Device: markTime(latest), Now: utc(now)}
	return nil
}

// deviceMarks lists the records of the user's devices.
func (s *Service) deviceMarks(ctx context.Context, a *attempt) (map[revocation.DeviceTag]session.DeviceRecord, error) {
	if a.user.User == "" {
		return nil, nil
	}
	l, err := s.cfg.Store.List(ctx, a.user)
	if err != nil {
		return nil, unavailable(fmt.Errorf("list devices: %w", err))
	}
	a.listing = l
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

// LiftMarks sets marks of a user, of its devices and of its homeserver that are
// in the future to the store's time, and returns how many there were. What they revoked stays
// revoked. An empty user lifts the homeserver's alone.
func (s *Service) LiftMarks(ctx context.Context, user store.UserKey) (lifted int, err error) {
	a := s.about(OpLiftMarks, user, caveat.SessionID{})
	err = s.liftMarks(ctx, a, &lifted)
	return lifted, s.finish(ctx, a, err)
}

func (s *Service) liftMarks(ctx context.Context, a *attempt, lifted *int) error {
	for range maxRetries {
		*lifted = 0
		st, v, err := s.load(ctx, a)
		if err != nil {
			return err
		}
		now, err := s.storeNow(ctx)
		if err != nil {
			return err
		}
		done := true
		if st.Homeserver.At > now {
			next := st.Homeserver
			next.At = now
			if done, err = s.swapHomeserver(ctx, a, v, &next, false); err != nil {
				return err
			}
			*lifted++
		}
		if a.user.User != "" && done {
			ed, err := s.liftUser(ctx, a, st, v, now)
			if err != nil {
				return err
			}
			if len(ed.changes) > 0 {
				*lifted += len(ed.changes)
				if done, err = s.swap(ctx, a, ed); err != nil {
					return err
				}
			}
		}
		if done {
			return nil
		}
		a.obs.Retries++
	}
	return errContention
}

// liftUser returns the edit that lifts marks of a user and of its devices.
// Nothing ends by it, but the journal has to know.
func (s *Service) liftUser(ctx context.Context, a *attempt, st session.State, v store.View, now int64) (ed edit, err error) {
	if st.User.At > now {
		next := st.User
		next.At, next.Covered = now, min(next.Covered, now)
		if err := s.changeUser(&ed, a.user, v, &next); err != nil {
			return edit{}, unavailable(err)
		}
		ed.revoked = nil
	}
	devices, err := s.deviceMarks(ctx, a)
	if err != nil {
		return edit{}, err
	}
	for tag, d := range devices {
		if d.Revoked <= now {
			continue
		}
		next := d.Lift(now)
		a.device = tag
		if err := s.changeDevice(&ed, a, a.listing.Devices[tag], &next); err != nil {
			return edit{}, unavailable(err)
		}
		entry := s.journalDevice(a, &next)
		entry.Generation = uint64(d.Revoked)
		ed.revocations = append(ed.revocations, entry)
	}
	return ed, nil
}

// journalDevice returns the entry of a device's mark.
func (s *Service) journalDevice(a *attempt, v *session.DeviceRecord) revocation.Revocation {
	return revocation.Revocation{
		Kind: revocation.KindDevice, Homeserver: a.user.Homeserver, User: a.user.User, Device: a.device, Except: v.Except, At: v.Revoked,
		Keep: session.KeepUntil(s.keepMark(v.Revoked)), Soft: v.End.Soft, Cause: v.End.Cause,
	}
}
