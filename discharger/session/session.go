// Package session is the state machine of a session: what a session may do, how
// it ends, and how its records are stored. It is pure: it reads no clock, draws
// no random numbers, does no I/O, and keeps nothing. [Step] takes what the store
// holds, what happened and when, and returns the answer and the records to store.
//
//	             first discharge, in time
//	(no record) ─────────────────────────▶ live ──▶ live, epoch+1 ──▶ …
//	     ▲                                  │
//	     │ forgotten                        │ logout, revocation, theft, time,
//	     │                                  ▼ another login on the device
//	     └──────────────────────────────  ended
//
// An ended session's record is a tombstone. It remembers how and when the
// session ended, and every answer about the session agrees with it. A missing
// record means "not yet activated" inside the activation window. After it, it
// means that the session has ended and is forgotten, which is answered as a
// soft end: no key is lost because of what is not known.
//
// # Refresh tokens
//
// A token carries its epoch and when it was issued, which strictly increases in
// a session. The confirmed token is the newest one that is known to have
// reached the client. It may be exchanged any number of times for successors,
// whose epoch is one higher, until one of them is used: that one is confirmed
// then, and the others are dead. So a reply that is lost does no harm, at any
// age and from any network. A token that is dead or older than the confirmed
// one is a copy. From the party of the last use it is refused, and the session
// lives; from another party it ends the session, softly, since nothing tells
// which of the two is the owner.
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
//	newer than the record                   the store lost a write: it is believed
//	no record, inside the window            the store lost the activation: it is made again
//
// A homeserver's report that it saw a discharge in use shows that a successor has
// arrived, and the confirmed token is superseded. But for three minutes another
// party can exchange it: the client may have read it before on its other network,
// and repeats a request that was lost. What that party is handed was not reported,
// so the confirmed token can be exchanged again until a successor is used. If
// several successors were handed out, each stays usable until one is presented.
//
// # Revocation
//
// All of a user's sessions are revoked by generation, which an activated session
// has in its record. One that is not activated yet has only the time at which it
// was minted, and that is by its homeserver's clock, while the revocation is by
// the store's. So a session that a homeserver mints with a clock ahead, shortly
// before such a revocation, seems to be from after it, and can still be
// activated. Shortly is no more than the clock is ahead. That is not much more
// than Limits.Skew without being noticed: what is minted with a clock further
// ahead can only be used when the rest of the time has gone by. A
// revocation of one session by its id ends it whatever the clocks say.
//
// A mark, which is the time of such a revocation, may lie in the future if a
// clock was wrong when it was made. Nothing is decided by it then.
package session

import (
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store"
)

// State is what the store holds: a session's record, nil if there is none,
// those of its user, its homeserver and its device, and what the store lost.
type State struct {
	Session    *Record
	User       GenerationRecord
	Homeserver GenerationRecord
	Device     DeviceRecord
	Losses     store.Losses

	// Now is the store's time, Unix ms; 0: it was not read, see
	// Outcome.NeedsTime.
	Now int64

	// OnDevice holds the other live sessions of the device, if Listed; see
	// Outcome.NeedsDevice.
	OnDevice []caveat.SessionID
	Listed   bool
}

// EventKind is what is asked for.
type EventKind uint8

// The events.
const (
	EventDischarge EventKind = iota + 1 // activation or refresh
	EventLogout                         // this session
	EventLogoutAll                      // every session of the user
	EventOwn                            // listing and ending the user's sessions
)

// Event is one request, with everything about it that matters here already
// verified: the condition was sealed by a registered homeserver, the token's
// signature and its holder's restrictions hold.
type Event struct {
	Kind         EventKind
	Now          int64 // Unix ms
	Condition    *caveat.Condition
	Token        *Token // nil: none was presented
	Retired      bool   // a token was presented whose key was retired; Token is nil then
	ByHomeserver bool   // the session's own homeserver asks, with its API key
	Tag          RequestTag
	From         Party
	Agent        string // the User-Agent of From
}

// Limits are the lengths of time that bound a session. They are the same for
// all sessions of a service.
type Limits struct {
	Activation time.Duration // from minting to the first discharge, at the latest
	Grace      time.Duration // how long the same party gets the same successor again
	Idle       time.Duration // without a discharge for this long, the session ends; 0: never
	Absolute   time.Duration // from minting, the session ends; 0: never
	Skew       time.Duration // how far ahead a homeserver's clock may be
	Remember   time.Duration // how long a hard end is remembered
}

// reportSlack is how long another party can exchange the confirmed token after a
// report that its successor's discharge was used: longer than a client repeats a
// request.
const reportSlack = 3 * time.Minute

// tombstoneSlack is how long a tombstone outlives the time it is needed for,
// so that a clock set back by less cannot reopen an activation window.
const TombstoneSlack = time.Hour

// touch is how stale LastUsed may become in the modes that write nothing else.
func (l Limits) touch() time.Duration {
	if l.Idle > 0 {
		return min(time.Hour, l.Idle/8)
	}
	return time.Hour
}
