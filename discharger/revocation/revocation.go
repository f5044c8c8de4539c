// Package revocation is the fact "these sessions ended", in one type with one
// codec. It is a leaf: the core writes it, stores journal and publish it, and
// the Go client, the gateway and the sender of security events read it.
//
// # From request to refusal
//
// Between the request that ends a session and the refusal at another homeserver
// or gateway the fact changes form four times:
//
//	logout, revocation, theft, policy, time
//	   │ 1  the core decides, and makes a Revocation
//	   ▼
//	Revocation      in store.Write, beside the records that it changes
//	   │ 2  the store appends Revocation.Event to the homeserver's feed as JSON
//	   ▼
//	JSON            in the feed, and unchanged as data of a server-sent event
//	   │ 3  ParseEvent, in the client
//	   ▼
//	Event           homeserver.Feed, gateway, secevent
//	   │ 4  homeserver.Feed keeps what verification looks up
//	   ▼
//	refusal         of any discharge of the sessions, without a request
//
// A store with a journal writes the Revocation to it before the records change
// (store/journal has that codec), and sends it to the journals of the other
// processes. A replay after a failover makes the same Revocation again, and goes
// on at step 2.
//
// # What an event promises
//
// An event decides nothing. It repeats a fact that the records hold and that
// stays true, so events may come twice, late, or in another order. If an event is
// lost, a discharge that was valid when its session ended is valid until it
// expires.
package revocation

import (
	"github.com/discharger/discharger/discharger/caveat"
)

// Kind is which sessions a revocation is about. The numbers are stored in
// journals and never change.
type Kind uint8

// The kinds.
const (
	KindSession    Kind = iota + 1 // one session
	KindUser                       // all sessions of a user except Except
	KindHomeserver                 // all sessions of a homeserver
	KindDevice                     // the sessions of a device, as far as they have no record
)

// Revocation is one revocation, as the core orders it and a journal keeps it.
type Revocation struct {
	Kind       Kind
	Homeserver string
	User       string           // empty with KindHomeserver
	Session    caveat.SessionID // with KindSession
	Except     caveat.SessionID // with KindUser and KindDevice: not revoked; zero: none
	Tag        DeviceTag        // with KindDevice
	At         int64            // Unix ms
	Devices    bool             // with KindUser: sessions without a device are not revoked

	// Generation is the generation that a user or homeserver was raised to; of a
	// session, its epoch; of a device, the mark that was lifted, or 0.
	Generation uint64

	// How the sessions ended. Journals of earlier versions do not have it: their
	// sessions ended softly, all of a user's or a homeserver's hard.
	Soft  bool
	Cause Cause
	Code  string

	// Keep is how long the store has to remember the revocation, and ExceptKeep
	// how long the session Except, in Unix seconds; 0: for ever.
	Keep, ExceptKeep int64

	// Notice is about the event, and is not journaled.
	Notice
}

// Notice is the part of a revocation that concerns only its event in the feed.
type Notice struct {
	// Until is when no discharge of the sessions can be valid any more, Unix ms;
	// 0: the revocation has no event, because none is needed or it was published.
	Until int64

	Device string // name of the device of a session, or with KindDevice; empty: none
	Again  bool   // published again: the event's reason is CauseAgain

	// Only: the revocation is not journaled, because its records have been, or
	// because another revocation of the write covers it.
	Only bool
}

// End returns how the sessions ended.
func (r *Revocation) End() End {
	return End{Soft: r.Soft, Cause: r.Cause, Code: r.Code, At: r.At}
}

// Journaled returns the revocations of a write that belong in a journal, without
// their notices. The result is comparable with what a journal returns.
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
