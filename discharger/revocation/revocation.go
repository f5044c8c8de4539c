// Package revocation has the type and the codec of a revocation: the event "these
// sessions ended". It is a leaf: the core creates revocations, stores journal and publish
// them, and the Go client, the gateway and the sender of security events read them.
//
// # From request to refusal
//
// Between the request that ends a session and the refusal at another homeserver
// or gateway, a revocation changes form four times:
//
//	logout, revocation, theft, policy, time
//	   │ 1  the core decides, and creates a Revocation
//	   ▼
//	Revocation      in store.Write, beside the records that it changes
//	   │ 2  the store appends Revocation.Event to the homeserver's feed as JSON
//	   ▼
//	JSON            in the feed, and unchanged as data of a server-sent event
//	   │ 3  ParseEvent, in the client
//	   ▼
//	Event           homeserver.Feed, gateway, secevent
//	   │ 4  homeserver.Feed keeps the entries that verification looks up
//	   ▼
//	refusal         of any discharge of the sessions, without a request
//
// A store with a journal writes the Revocation to it before the records change
// (store/journal has that codec), and sends it to the journals of the other
// processes. After a failover, package failover gives the same Revocation to the
// store again, and it continues at step 2.
//
// # Promises of an event
//
// An event decides nothing: it repeats a fact of the records, which stays true. So
// events may arrive repeatedly, late, or in another order. If an event is lost, a
// discharge issued before the session's end stays valid until it expires.
package revocation

import (
	"crypto/sha256"

	"github.com/discharger/discharger/discharger/caveat"
)

// Kind is the scope of a revocation. The numbers are stored in journals and never change.
type Kind uint8

// The kinds.
const (
	KindSession    Kind = iota + 1 // one session
	KindUser                       // all sessions of a user except Except
	KindHomeserver                 // all sessions of a homeserver
	KindDevice                     // the sessions of a device without a record
)

// Revocation is one revocation, in the form of the core and of a journal.
type Revocation struct {
	Kind       Kind
	Homeserver string
	User       string           // empty with KindHomeserver
	Session    caveat.SessionID // with KindSession
	Except     caveat.SessionID // with KindUser and KindDevice: spared; zero: none
	Tag        DeviceTag        // with KindDevice
	At         int64            // Unix ms
	Devices    bool             // with KindUser: sessions without a device are spared

	// Generation is the new generation of a user or homeserver; of a session, its
	// epoch; of a device, the mark that was lifted, or 0.
	Generation uint64

	// Soft, Cause and Code are those of the end. Journals of earlier versions have
	// none: one session ended softly, those of a user or a homeserver hard.
	Soft  bool
	Cause Cause
	Code  string

	// Keep is until when the store must keep the revocation, and ExceptKeep until
	// when the session Except, in Unix seconds; 0: for ever.
	Keep, ExceptKeep int64

	Notice // not journaled
}

// Notice is the part of a revocation that concerns only its event in the feed.
type Notice struct {
	// Until is when no discharge of the sessions is valid any more, Unix ms; 0: the
	// revocation has no event, since none is needed or it was published.
	Until int64

	Device string // name of the device of a session, or with KindDevice; empty: none
	Again  bool   // published again: the event's reason is CauseAgain

	// Only: the revocation is not journaled, since it was before, or another
	// revocation of the write covers it.
	Only bool
}

// End returns the end of the sessions.
func (r *Revocation) End() End {
	return End{Soft: r.Soft, Cause: r.Cause, Code: r.Code, At: r.At}
}

// Journaled returns the revocations of a write for a journal, without their notices,
// so that they equal those that a journal returns.
func Journaled(all []Revocation) []Revocation {
	out := make([]Revocation, 0, len(all))
	for _, r := range all {
		if !r.Only {
			r.Notice = Notice{}
			out = append(out, r)
		}
	}
	return out
}

// Cause is the cause of an end. Its text is part of the wire contract, as the reason
// of an event in the feed.
type Cause string

// The causes.
const (
	CauseLogout   Cause = "logout"   // by the client, or by another client of its user
	CauseReuse    Cause = "reuse"    // two parties held one refresh token
	CausePolicy   Cause = "policy"   // a policy decided so
	CauseLimit    Cause = "limit"    // more sessions than a policy allows
	CauseRevoked  Cause = "revoked"  // by the homeserver or an operator
	CauseExpired  Cause = "expired"  // idle or absolute lifetime, or the time in the condition
	CauseReplaced Cause = "replaced" // a newer login on the same device
	CauseLost     Cause = "lost"     // the store lost its data

	// CauseAgain is the reason of an event that was published again: the
	// revocation is older than the event.
	CauseAgain Cause = "again"
)

// End is the end of sessions. After a hard end clients discard their encryption
// keys; after a soft end they log in again and keep them.
type End struct {
	Soft  bool
	Cause Cause
	Code  string // with CausePolicy: the policy's reason; empty: "policy"
	At    int64  // Unix ms
}

// DeviceTag identifies a device of a user in a store: the first bytes of the SHA-256
// of its name. The zero tag is no device.
type DeviceTag [8]byte

// TagOf returns the tag of a device; zero if the name is empty.
func TagOf(device string) DeviceTag {
	if device == "" {
		return DeviceTag{}
	}
	sum := sha256.Sum256([]byte(device))
	tag := DeviceTag(sum[:8])
	if tag == (DeviceTag{}) {
		tag[0] = 1
	}
	return tag
}
