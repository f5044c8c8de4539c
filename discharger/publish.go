package discharger

import (
	"time"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// revokedSession returns the revocation of a session that became the tombstone r.
func (s *Service) revokedSession(user store.UserKey, id caveat.SessionID, r *session.Record, expires time.Time) revocation.Revocation {
	out := session.RevokedSession(user, id, r, expires)
	out.Device, out.Until = r.Device, s.life.Until(out.At)
	return out
}

// revokedUser returns the revocation of a user's record.
func (s *Service) revokedUser(user store.UserKey, v *session.GenerationRecord, expires time.Time) revocation.Revocation {
	out := session.RevokedUser(user, v, expires)
	out.Until = s.life.Until(out.At)
	return out
}

// republish returns an edit with the event of a session that has already ended:
// the process that ended it may have died before it published the event. A
// homeserver's event is published together with its record, and a session
// without a record has no discharges.
func (s *Service) republish(c *clientOp, rec *records) (ed edit) {
	var r revocation.Revocation
	switch x := rec.Session; {
	case x != nil && x.Over():
		r = s.revokedSession(c.user, c.session, x, time.Time{})
	case s.userEnded(c, rec):
		r = s.revokedUser(c.user, &rec.User, time.Time{})
	default:
		return edit{}
	}
	r.Only, r.Cause = true, causeFor(c, r.Cause)
	r.Again = c.event.Kind == session.EventDischarge || c.event.Kind == session.EventOwn
	if s.skipPublished(&c.operation, &r); r.Until == 0 {
		return edit{}
	}
	ed.revoke(r)
	return ed
}

// republishAll adds the events of listed tombstones to an edit.
func (s *Service) republishAll(ed *edit, op *operation, ended []stored) {
	for _, x := range ended {
		r := s.revokedSession(op.user, x.id, &x.record, time.Time{})
		r.Only, r.Again = true, true
		if s.skipPublished(op, &r); r.Until != 0 {
			ed.revoke(r)
		}
	}
}

// skipPublished takes the event from a revocation that this process has
// published, or that is so old that no discharge of its sessions is valid.
func (s *Service) skipPublished(op *operation, r *revocation.Revocation) {
	if _, known := s.published.Get(factOf(r)); known || op.now.UnixMilli() >= r.Until {
		r.Until = 0
	}
}

// remember notes the revocations whose events were published.
func (s *Service) remember(all []revocation.Revocation) {
	for i := range all {
		if all[i].Until != 0 {
			s.published.Put(factOf(&all[i]), struct{}{})
		}
	}
}

// fact identifies a published event: the session, or the mark of a user, a
// device or a homeserver.
type fact struct {
	homeserver, user, device string
	session                  caveat.SessionID
	at                       int64
}

func factOf(r *revocation.Revocation) fact {
	if r.Kind == revocation.KindSession {
		return fact{homeserver: r.Homeserver, session: r.Session}
	}
	return fact{homeserver: r.Homeserver, user: r.User, device: r.Device, at: r.At}
}

// publishedBytes bounds the memory for published events, so that a repeated
// logout does not fill the feed. A forgotten event is published once more.
const publishedBytes = 8 << 20

func newPublished() (*cache.Cache[fact, struct{}], error) {
	return cache.New(cache.Config[fact, struct{}]{
		Bytes: publishedBytes,
		Size:  func(k fact, _ struct{}) int { return len(k.user) + len(k.device) },
	})
}
