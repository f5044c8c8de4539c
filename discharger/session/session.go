// Package session is the state machine of a session, with the codec of its
// records. It is pure: it reads no clock, draws no random numbers, does no I/O and
// keeps nothing. [Step] takes the stored records and a request with its time, and
// returns the answer and the records to store.
//
//	             first discharge, in time
//	(no record) ─────────────────────────▶ live ──▶ live, epoch+1 ──▶ …
//	     ▲                                  │
//	     │ forgotten                        │ logout, revocation, theft, time,
//	     │                                  ▼ another login on the device
//	     └──────────────────────────────  ended
//
// An ended session's record is a tombstone: it has the kind and the time of the
// end, and every answer about the session agrees with it. A missing record means
// "not yet activated" inside the activation window. After the window it means that
// the session has ended and is forgotten. The answer is then a soft end: its kind
// is unknown, and a client must not discard keys without need.
//
// # Refresh tokens
//
// A token carries its epoch and its time of issue, which strictly increases in a
// session. The confirmed token is the newest one that is known to have reached the
// client. It may be exchanged any number of times for successors, whose epoch is
// one higher, until one of them is used: that one is then confirmed, and the others
// are dead. So a lost reply does no harm, at any age and from any network. A token
// that is dead or older than the confirmed one is a copy. From the party of the last
// use it is refused, and the session lives. From another party it ends the session,
// softly, since either of the two may be the owner.
//
//	token                                   party of the last use   another party
//	none, again, first token unused         the same answer         another first token
//	none, first token used                  token_required          token_required
//	confirmed, no successor yet             a successor             a successor
//	confirmed, successor unused,
//	  same request or within Grace          the same successor      another successor
//	confirmed, successor unused, later      another successor       another successor
//	confirmed, successor reported as used   token_superseded        another successor for three minutes,
//	                                                                then token_reused, the session ends
//	unused successor                        confirmed; a successor  confirmed; a successor
//	dead, or older than the confirmed one   token_superseded        token_reused, the session ends
//	newer than the record                   the store lost a write: accepted
//	no record, inside the window            the store lost the activation: it is repeated
//
// A homeserver's report that it saw a discharge in use shows that a successor has
// arrived, and supersedes the confirmed token. For three minutes after the report
// another party can still exchange it: that party may be the client on its other
// network, repeating a lost request. The successor issued then is unreported, so the
// confirmed token can be exchanged again until a successor is used. If several
// successors were issued, each stays usable until one is presented.
//
// # Revocation
//
// All of a user's sessions are revoked by generation, which the record of an
// activated session has. A session that is not activated yet has only its time of
// minting, by its homeserver's clock, while the revocation has a time of the store's
// clock, the mark. So a session that was minted shortly before the revocation, by a
// clock that is ahead, can still be activated. The clock can be ahead by little more
// than Limits.Skew: a caveat from further in the future is undecided until then. A
// revocation of one session by its id depends on no clock.
//
// A mark lies in the future if a clock was wrong when it was made. A request that it
// covers is undecided until then.
package session

import (
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store"
)

// State is the stored state that concerns a request: the records of a session (nil:
// none), of its user, its homeserver and its device, and the losses of the store.
type State struct {
	Session    *Record
	User       GenerationRecord
	Homeserver GenerationRecord
	Device     DeviceRecord
	Losses     store.Losses

	Now int64 // the store's time, Unix ms; 0: not read, see Outcome.NeedsTime

	// OnDevice are the other live sessions of the device, if Listed; see
	// Outcome.NeedsDevice.
	OnDevice []caveat.SessionID
	Listed   bool
}

// EventKind is the kind of a request.
type EventKind uint8

// The events.
const (
	EventDischarge EventKind = iota + 1 // activation or refresh
	EventLogout                         // this session
	EventLogoutAll                      // every session of the user
	EventOwn                            // listing and ending the user's sessions
)

// Event is one verified request: its condition was sealed by a registered
// homeserver, and the token's signature and its added caveats hold.
type Event struct {
	Kind         EventKind
	Now          int64 // Unix ms
	Condition    *caveat.Condition
	Token        *Token // nil: none was presented
	Retired      bool   // the presented token's key is retired; Token is nil
	ByHomeserver bool   // by the session's own homeserver, with its API key
	Tag          RequestTag
	From         Party
	Agent        string // the User-Agent of From
}

// Limits are the durations that bound every session of a service.
type Limits struct {
	Activation time.Duration // from minting to the first discharge, at the latest
	Grace      time.Duration // how long the same party gets the same successor again
	Idle       time.Duration // from the last discharge to the session's end; 0: no limit
	Absolute   time.Duration // from minting to the session's end; 0: no limit
	Skew       time.Duration // how far ahead a homeserver's clock may be
	Remember   time.Duration // how long a hard end is remembered
}

// reportSlack is how long another party can exchange the confirmed token after a report
// that its successor's discharge was used: longer than a client repeats a request.
const reportSlack = 3 * time.Minute

// TombstoneSlack is how much longer than needed a tombstone is kept, so that a
// clock set back by less cannot reopen an activation window.
const TombstoneSlack = time.Hour

// touch returns how stale LastUsed may become in modes open and held, where a
// refresh writes nothing else.
func (l Limits) touch() time.Duration {
	if l.Idle > 0 {
		return min(time.Hour, l.Idle/8)
	}
	return time.Hour
}
