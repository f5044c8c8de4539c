package discharger

import (
	"context"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// RevokeUser ends every session of a user, activated or not, except those that the
// order spares, in one write.
func (s *Service) RevokeUser(ctx context.Context, user store.UserKey, o Order) (out Revoked, err error) {
	a := s.newAdminOp(OpRevokeUser, user, o.Except, o)
	err = s.retry(ctx, &a.operation, func(rec *records) (edit, error) {
		out = Revoked{Marked: true}
		return s.revokeUser(ctx, a, rec, &out)
	})
	return out, s.finish(ctx, &a.operation, err)
}

func (s *Service) revokeUser(ctx context.Context, a *adminOp, rec *records, out *Revoked) (ed edit, err error) {
	mark, err := s.mark(ctx, &a.order)
	if err != nil {
		return edit{}, err
	}
	// A session with an unreadable record gets no discharge, so it is skipped.
	live, ended, err := s.listReadable(ctx, &a.operation, rec)
	if err != nil {
		return edit{}, err
	}
	out.Known = len(live)+len(ended) > 0 || rec.view.User != nil
	if mark < rec.User.At {
		return s.revokeEach(a, rec, live, ended, mark, out)
	}
	return s.raiseUser(a, rec, live, mark, out)
}

// raiseUser raises the user's generation, and with it that of the sessions that the
// order spares.
func (s *Service) raiseUser(a *adminOp, rec *records, live []stored, mark int64, out *Revoked) (ed edit, err error) {
	op, o := &a.operation, &a.order
	next := rec.User.Raise(mark, caveat.SessionID{}, o.end(mark))
	var except caveat.SessionID
	var each edit // events of the sessions that end
	aged := false // a spared session may have been minted before the mark
	for i := range live {
		x := &live[i]
		if !o.spares(x, mark) {
			out.Ended++
			r := s.revokedSession(a.user, x.id, x.record.Tombstone(o.end(mark)), s.keepMark(mark))
			r.Only = true
			each.revoke(r)
			continue
		}
		aged = aged || o.sparesByAge(x, mark)
		kept := x.record
		kept.UserGeneration = next.Generation
		if err := s.changeSession(&ed, op, *x, &kept, &caveat.Condition{Minted: a.now.UnixMilli()}); err != nil {
			return edit{}, err
		}
		if x.id == o.Except || except == (caveat.SessionID{}) && x.record.Device != "" && x.record.Device == o.ExceptDevice {
			except = x.id
		}
	}
	if except == (caveat.SessionID{}) && o.Except != (caveat.SessionID{}) && rec.Session == nil {
		except = o.Except // its record may have been lost
	}
	next.Spare(&rec.User, except, o.Devices)
	if next.Covered < mark-(s.cfg.Limits.Activation+s.cfg.Limits.Skew).Milliseconds() {
		next.Covered = 0 // no session from before it can be activated any more
	}
	r, err := s.changeUser(&ed, op, rec.view.User, &next)
	if err != nil {
		return edit{}, err
	}
	for _, c := range ed.changes {
		if c.Session == next.Except && c.Session != (caveat.SessionID{}) {
			r.ExceptKeep = session.KeepUntil(c.Expires)
		}
	}
	if aged { // the user's event would cover sessions spared by age
		r.Until = 0
		ed.revocations = append(ed.revocations, each.revocations...)
	}
	return ed, nil
}

// revokeEach ends a user's sessions one by one, since a later revocation than the
// mark exists: the time of the record only increases, and an event with it would end
// sessions that the order spares. The later revocation covers sessions without a
// record, except those that it spared.
func (s *Service) revokeEach(a *adminOp, rec *records, live, ended []stored, mark int64, out *Revoked) (ed edit, err error) {
	op, o := &a.operation, &a.order
	if err := s.reassertAll(&ed, op, ended); err != nil {
		return edit{}, err
	}
	for i := range live {
		if o.spares(&live[i], mark) {
			continue
		}
		out.Ended++
		if err := s.end(&ed, op, live[i], o.end(a.now.UnixMilli())); err != nil {
			return edit{}, err
		}
	}
	next := rec.User
	if spared := next.Devices && !o.Devices || next.Except != (caveat.SessionID{}) && next.Except != o.Except; spared && mark > next.Covered {
		next.Covered = mark
	}
	_, err = s.changeUser(&ed, op, rec.view.User, &next)
	return ed, err
}
