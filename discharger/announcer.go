package discharger

import (
	"fmt"
	"time"
)

// Announcer writes the events of revocations that a store had lost and is
// given again from a journal. A homeserver may not have been told of them: the
// event can have been lost as well, before the homeserver read it. And while
// the store did not know of them, discharges may have been issued that outlive
// the first event.
type Announcer struct {
	MaxTTL time.Duration   // that of [Config]; 0: its default
	Skew   time.Duration   // that of [Limits]; 0: its default
	Named  map[string]bool // that of [Config]
}

// Event returns the event of an entry that the store is given again at this
// time, from which on no discharge is issued that the event is about.
func (a Announcer) Event(e *JournalEntry, now time.Time) (FeedEvent, error) {
	r := revoked{homeserver: e.Homeserver, at: e.At, restored: now.UnixMilli(), cause: causeAgain}
	switch e.Kind {
	case JournalSession:
		r.session, r.owner = e.Session, e.User
	case JournalUser:
		r.user, r.except, r.before = e.User, e.Except, e.At+1
	case JournalHomeserver:
		r.all, r.before = true, e.At+1
	default:
		return FeedEvent{}, fmt.Errorf("write event: there is no kind %d of entries", e.Kind)
	}
	return a.write(&r)
}
