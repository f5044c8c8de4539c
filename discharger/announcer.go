package discharger

import (
	"fmt"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"time"
)

// Announcer writes the events of revocations that a store had lost and is
// given again from a journal. A homeserver may not have been told of them: the
// event can have been lost as well, before the homeserver read it. And while
// the store did not know of them, discharges may have been issued that outlive
// the first event.
type Announcer struct {
	MaxTTL time.Duration // that of [Config]; 0: its default
	Skew   time.Duration // that of [session.Limits]; 0: its default
}

// Event returns the event of an entry that the store is given again at this
// time, from which on no discharge is issued that the event is about. Data is
// nil if the entry needs no event.
func (a Announcer) Event(e *revocation.Revocation, now time.Time) (store.FeedEvent, error) {
	r := revoked{homeserver: e.Homeserver, at: e.At, restored: now.UnixMilli(), soft: e.Soft, cause: revocation.CauseAgain}
	switch e.Kind {
	case revocation.KindSession:
		r.session, r.user = e.Session, e.User
		if e.Cause == "" { // of an earlier version, which did not note how it ended
			r.soft = true
		}
	case revocation.KindUser:
		r.user, r.except, r.devices, r.before = e.User, e.Except, e.Devices, e.At+1
	case revocation.KindHomeserver:
		r.all, r.before = true, e.At+1
	case revocation.KindDevice: // it covers sessions without a record only, which have no discharges
		return store.FeedEvent{}, nil
	default:
		return store.FeedEvent{}, fmt.Errorf("write event: there is no kind %d of entries", e.Kind)
	}
	return a.write(&r)
}
