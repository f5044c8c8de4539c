package discharger

import (
	"bytes"
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

var (
	errNoSession  = errors.New("session is all zeros")
	errContention = unavailable(errors.New("too many concurrent requests for one session"))
)

// maxRetries bounds swap retries of a discharge and of a homeserver's revocation.
// One contender wins each round, and most of the others then have no change left.
const maxRetries = 32

// maxRevokeRetries bounds swap retries of a revocation, which always has
// something to write. It is high so that the context's deadline ends the loop.
const maxRevokeRetries = 1024

// edit is a write to a user's records. Without changes, only its events are published.
type edit struct {
	changes     []store.Change
	revocations []revocation.Revocation
}

// retry writes the edit that change returns, and starts over while other requests
// change the records. An empty edit ends it.
func (s *Service) retry(ctx context.Context, op *operation, change func(*records) (edit, error)) error {
	for range maxRevokeRetries {
		rec, err := s.load(ctx, op)
		if err != nil {
			return err
		}
		ed, err := change(&rec)
		var refused *Refusal
		switch {
		case errors.As(err, &refused), errors.Is(err, ErrBadRequest):
			return err
		case err != nil:
			return unavailable(err)
		}
		if done, err := s.write(ctx, op, ed); err != nil || done {
			return err
		}
	}
	return errContention
}

// write sends an edit to the store, or only its events if it has no changes. It
// returns false if the records have changed since they were read.
func (s *Service) write(ctx context.Context, op *operation, ed edit) (done bool, err error) {
	if len(ed.changes)+len(ed.revocations) == 0 {
		return true, nil
	}
	switch {
	case len(ed.changes) > 0:
		w := store.Write{User: op.user, Changes: ed.changes, Revocations: ed.revocations}
		if done, err = s.cfg.Store.Swap(ctx, w); err != nil {
			return false, unavailable(fmt.Errorf("swap session: %w", err))
		}
	case slices.ContainsFunc(ed.revocations, func(r revocation.Revocation) bool { return r.Until != 0 }):
		if err = s.cfg.Store.Publish(ctx, op.user.Homeserver, ed.revocations...); err != nil {
			return false, unavailable(fmt.Errorf("publish revocation: %w", err))
		}
		done = true
	default:
		return true, nil
	}
	if !done {
		op.obs.Retries++
		return false, nil
	}
	s.remember(ed.revocations)
	return true, nil
}

// keepMark returns when no session that a mark covers can be activated any more.
func (s *Service) keepMark(at int64) time.Time {
	return time.UnixMilli(at).Add(s.cfg.Limits.Activation + s.cfg.Limits.Skew + session.TombstoneSlack)
}

// changeUser adds the change of a user's own record to an edit, and returns its
// revocation.
func (s *Service) changeUser(ed *edit, op *operation, old []byte, next *session.GenerationRecord) (*revocation.Revocation, error) {
	b, err := next.MarshalBinary()
	if err != nil {
		return nil, err
	}
	expires := s.keepMark(next.At)
	ed.changes = append(ed.changes, store.Change{Old: old, New: b, Expires: expires})
	return ed.revoke(s.revokedUser(op.user, next, expires)), nil
}

// changeDevice adds the change of a device's record to an edit.
func (s *Service) changeDevice(ed *edit, tag revocation.DeviceTag, old []byte, next *session.DeviceRecord) error {
	b, err := next.MarshalBinary()
	if err != nil || bytes.Equal(b, old) {
		return err
	}
	ed.changes = append(ed.changes, store.Change{Device: tag, Old: old, New: b, Expires: s.keepMark(max(next.Since, next.Revoked))})
	return nil
}

// changeSession adds the change of a session's record to an edit, and the
// revocation if next is a tombstone. cond is the session's condition, or has only
// the latest time at which it can have been minted.
func (s *Service) changeSession(ed *edit, op *operation, old stored, next *session.Record, cond *caveat.Condition) error {
	b, err := next.MarshalBinary()
	if err != nil {
		return err
	}
	expires := session.Expires(next, cond, s.cfg.Limits)
	ed.changes = append(ed.changes, store.Change{Session: old.id, Old: old.raw, New: b, Expires: expires})
	if next.Over() {
		ed.revoke(s.revokedSession(op.user, old.id, next, expires))
	}
	return nil
}

// end adds the end of a listed session to an edit.
func (s *Service) end(ed *edit, op *operation, x stored, end revocation.End) error {
	return s.changeSession(ed, op, x, x.record.Tombstone(end), &caveat.Condition{Minted: x.record.Created})
}

// revoke adds a revocation to an edit.
func (ed *edit) revoke(r revocation.Revocation) *revocation.Revocation {
	ed.revocations = append(ed.revocations, r)
	return &ed.revocations[len(ed.revocations)-1]
}

// reassert adds the unchanged tombstone of a session to an edit: the first logout
// may have been written but not made durable, so a repeated one waits for durability
// again. The event is published again unless this process published it.
func (s *Service) reassert(ed *edit, op *operation, x stored, cond *caveat.Condition) error {
	if err := s.changeSession(ed, op, x, &x.record, cond); err != nil {
		return err
	}
	s.skipPublished(op, &ed.revocations[len(ed.revocations)-1])
	return nil
}

// reassertEnd returns the edit that reasserts the stored revocation of a client's
// session. That of a whole homeserver needs none: every call raises it.
func (s *Service) reassertEnd(c *clientOp, rec *records) (ed edit, err error) {
	switch r := rec.Session; {
	case r != nil && r.Over():
		err = s.reassert(&ed, &c.operation, stored{id: c.session, raw: rec.view.Session, record: *r}, &c.cond)
	case rec.view.User != nil && s.userEnded(c, rec):
		var x *revocation.Revocation
		if x, err = s.changeUser(&ed, &c.operation, rec.view.User, &rec.User); err == nil {
			s.skipPublished(&c.operation, x)
			x.Cause = causeFor(c, x.Cause)
		}
	}
	return ed, err
}

// userEnded reports whether a client's session ended by a revocation of all of its
// user's.
func (s *Service) userEnded(c *clientOp, rec *records) bool {
	if r := rec.Session; r != nil {
		return !r.Over() && r.UserGeneration < rec.User.Generation
	}
	return rec.User.At > 0 && c.cond.Minted <= rec.User.At
}

// causeFor returns the cause of a repeated revocation. A user's record has one cause
// for a logout of all sessions and for a revocation.
func causeFor(c *clientOp, cause revocation.Cause) revocation.Cause {
	if c.event.Kind == session.EventLogoutAll && cause == revocation.CauseRevoked {
		return revocation.CauseLogout
	}
	return cause
}

// reassertAll adds listed tombstones to an edit. Their events have CauseAgain.
func (s *Service) reassertAll(ed *edit, op *operation, ended []stored) error {
	for _, x := range ended {
		if err := s.reassert(ed, op, x, &caveat.Condition{Minted: x.record.End.At}); err != nil {
			return err
		}
		ed.revocations[len(ed.revocations)-1].Again = true
	}
	return nil
}

// maxDropped bounds the device records that one activation removes.
const maxDropped = 16

// dropDevices adds to an activation's edit the removal of device records whose
// session is gone and whose mark is no longer needed.
func (s *Service) dropDevices(ed *edit, c *clientOp, rec *records) {
	dropped := 0
	for tag, raw := range rec.listing.Devices {
		var d session.DeviceRecord
		if err := d.UnmarshalBinary(raw); err != nil || tag == c.device || dropped == maxDropped {
			continue
		}
		_, kept := rec.listing.Sessions[d.Current]
		if kept || s.keepMark(max(d.Revoked, d.Since)).After(c.now) {
			continue
		}
		dropped++
		ed.changes = append(ed.changes, store.Change{Device: tag, Old: raw})
	}
}
