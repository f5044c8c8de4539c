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

// Order is a revocation by a homeserver or an operator. The zero value revokes hard,
// now, and without exception. Sessions without a record are revoked too: one by its
// id, those of a device or a user by a mark, which is a time of the store's clock.
type Order struct {
	Soft bool // the clients log in again and keep their encryption keys

	// Age is the time since the sessions ended for the caller: sessions activated
	// since are spared. The service compares in the store's time.
	Age time.Duration

	Except       caveat.SessionID // of a user or a device: spared; zero: none
	ExceptDevice string           // of a user: sessions of this device are spared; empty: none
	Devices      bool             // of a user: sessions without a device are spared

	// Epoch, of one session, is the epoch of the discharge with which the client
	// authenticated: the order is refused with ReasonTokenSuperseded unless it is the
	// newest epoch or the one before. 0: not checked.
	Epoch uint64
}

// Revoked is the result of a revocation.
type Revoked struct {
	Ended  int  // number of sessions that it ended
	Known  bool // the session, the device or the user has records, live or tombstones
	Marked bool // sessions minted before, without a record, are revoked too
}

func (o *Order) end(at int64) revocation.End {
	return revocation.End{Soft: o.Soft, Cause: revocation.CauseRevoked, At: at}
}

// mark returns the mark of an order, in the store's time.
func (s *Service) mark(ctx context.Context, o *Order) (int64, error) {
	now, err := s.storeNow(ctx)
	return now - max(o.Age, 0).Milliseconds(), err
}

// spares reports whether an order spares a live session.
func (o *Order) spares(x *stored, mark int64) bool {
	switch r := &x.record; {
	case x.id == o.Except && x.id != caveat.SessionID{}:
		return true
	case o.ExceptDevice != "" && r.Device == o.ExceptDevice, o.Devices && r.Device == "":
		return true
	case o.Age > 0:
		return r.Created > mark // Created is rounded down
	}
	return false
}

// sparesByAge reports whether an order spares a live session that may have been
// minted before the mark.
func (o *Order) sparesByAge(x *stored, mark int64) bool { return o.Age > 0 && x.record.Created > mark }

// Revoke ends one session of a user, activated or not. An unknown session is no error.
func (s *Service) Revoke(ctx context.Context, user store.UserKey, id caveat.SessionID, o Order) (out Revoked, err error) {
	a := s.newAdminOp(OpRevoke, user, id, o)
	if id == (caveat.SessionID{}) { // to the store, the user's own record
		return Revoked{}, s.finish(ctx, &a.operation, badRequest(errNoSession))
	}
	err = s.retry(ctx, &a.operation, func(rec *records) (edit, error) {
		out = Revoked{}
		return s.revoke(a, rec, &out)
	})
	return out, s.finish(ctx, &a.operation, err)
}

func (s *Service) revoke(a *adminOp, rec *records, out *Revoked) (ed edit, err error) {
	op, now := &a.operation, a.now.UnixMilli()
	old := stored{id: a.session, raw: rec.view.Session}
	if r := rec.Session; r == nil {
		out.Marked = true
	} else {
		out.Known = true
		if a.order.Epoch > 0 && a.order.Epoch+1 < r.NewestEpoch() {
			return edit{}, &Refusal{Reason: session.ReasonTokenSuperseded}
		}
		old.record = *r
		if end, over := rec.Ended(); over && !r.Over() {
			old.record = *r.Tombstone(end) // with the end by the revocation of all
		} else if !over {
			out.Ended = 1
		}
	}
	if old.record.Over() {
		return ed, s.reassert(&ed, op, old, &caveat.Condition{Minted: old.record.End.At})
	}
	return ed, s.changeSession(&ed, op, old, old.record.Tombstone(a.order.end(now)), &caveat.Condition{Minted: now})
}

// RevokeDevice ends every session of a user's device, activated or not, except those
// that the order spares.
func (s *Service) RevokeDevice(ctx context.Context, user store.UserKey, device string, o Order) (out Revoked, err error) {
	a := s.newAdminOp(OpRevokeDevice, user, o.Except, o)
	if device == "" {
		return Revoked{}, s.finish(ctx, &a.operation, badRequest(errors.New("device is empty")))
	}
	a.device = revocation.TagOf(device)
	err = s.retry(ctx, &a.operation, func(rec *records) (edit, error) {
		out = Revoked{Marked: true}
		return s.revokeDevice(ctx, a, rec, device, &out)
	})
	return out, s.finish(ctx, &a.operation, err)
}

func (s *Service) revokeDevice(ctx context.Context, a *adminOp, rec *records, device string, out *Revoked) (ed edit, err error) {
	op, o := &a.operation, &a.order
	mark, err := s.mark(ctx, o)
	if err != nil {
		return edit{}, err
	}
	live, ended, err := s.listReadable(ctx, op, rec)
	if err != nil {
		return edit{}, err
	}
	// A tombstone of an earlier version has no device: it may be of this one.
	ended = slices.DeleteFunc(ended, func(x stored) bool { return x.record.Device != device && x.record.Device != "" })
	out.Known = slices.ContainsFunc(ended, func(x stored) bool { return x.record.Device == device })
	if err := s.reassertAll(&ed, op, ended); err != nil {
		return edit{}, err
	}
	aged := false
	for i := range live {
		x := &live[i]
		if x.record.Device != device {
			continue
		}
		out.Known = true
		if o.spares(x, mark) {
			aged = aged || o.sparesByAge(x, mark)
			continue
		}
		out.Ended++
		if err := s.end(&ed, op, *x, o.end(a.now.UnixMilli())); err != nil {
			return edit{}, err
		}
	}
	next := deviceMark(rec.Device, mark, o)
	if err := s.changeDevice(&ed, a.device, rec.view.Device, &next); err != nil {
		return edit{}, err
	}
	r := ed.revoke(s.revokedDevice(op, a.device, &next))
	if r.Device = device; !aged { // an event would cover sessions spared by age
		r.Until = s.life.Until(r.At)
	}
	return ed, nil
}

// deviceMark returns the record of a device after an order. Its mark only increases.
func deviceMark(v session.DeviceRecord, mark int64, o *Order) session.DeviceRecord {
	if mark > v.Revoked {
		return v.Revoke(mark, o.Except, o.end(mark))
	}
	if v.Except != (caveat.SessionID{}) && v.Except != o.Except && mark > v.Covered {
		v.Cover(mark, o.end(mark))
	}
	return v
}

// revokedDevice returns the revocation of a device's mark, without an event.
func (s *Service) revokedDevice(op *operation, tag revocation.DeviceTag, v *session.DeviceRecord) revocation.Revocation {
	return revocation.Revocation{
		Kind: revocation.KindDevice, Homeserver: op.user.Homeserver, User: op.user.User, Tag: tag, Except: v.Except, At: v.Revoked,
		Keep: session.KeepUntil(s.keepMark(v.Revoked)), Soft: v.End.Soft, Cause: v.End.Cause,
	}
}

// RevokeHomeserver ends every session of a homeserver, activated or not, in one
// write. An order that spares any is a bad request. It returns when no process that
// shares the store can still use the homeserver's old record.
func (s *Service) RevokeHomeserver(ctx context.Context, homeserver string, o Order) error {
	a := s.newAdminOp(OpRevokeHomeserver, store.UserKey{Homeserver: homeserver}, caveat.SessionID{}, o)
	if o != (Order{Soft: o.Soft}) { // a generation spares none
		return s.finish(ctx, &a.operation, badRequest(errors.New("revocation of a homeserver cannot spare sessions")))
	}
	return s.finish(ctx, &a.operation, s.revokeHomeserver(ctx, a))
}

func (s *Service) revokeHomeserver(ctx context.Context, a *adminOp) error {
	for range maxRetries {
		rec, err := s.load(ctx, &a.operation)
		if err != nil {
			return err
		}
		mark, err := s.mark(ctx, &a.order)
		if err != nil {
			return err
		}
		next := rec.Homeserver.Raise(mark, caveat.SessionID{}, a.order.end(mark))
		done, err := s.swapHomeserver(ctx, &a.operation, rec.view.Homeserver, &next, s.life.Until(next.At))
		if err != nil || done {
			return err
		}
	}
	return errContention
}

// swapHomeserver replaces a homeserver's record. until is the revocation's; 0: it has
// no event.
func (s *Service) swapHomeserver(ctx context.Context, op *operation, old []byte, next *session.GenerationRecord, until int64) (bool, error) {
	b, err := next.MarshalBinary()
	if err != nil {
		return false, unavailable(err)
	}
	r := session.RevokedHomeserver(op.user.Homeserver, next)
	r.Until = until
	done, err := s.cfg.Store.SwapHomeserver(ctx, op.user.Homeserver, old, b, r)
	if err != nil {
		return false, unavailable(fmt.Errorf("swap homeserver: %w", err))
	}
	if !done {
		op.obs.Retries++
	}
	return done, nil
}
