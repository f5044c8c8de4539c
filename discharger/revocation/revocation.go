// Package revocation is the fact that sessions ended, in one type: which
// sessions, how and why they ended, and when. It is a leaf: the core, the journal
// of a store, and readers of the feed use it alike.
package revocation

import (
	"github.com/discharger/discharger/discharger/caveat"
)

// JournalKind is what an entry of a journal is about.
type Kind uint8

// The kinds.
const (
	KindSession    Kind = iota + 1 // one session
	KindUser                       // all of a user's but Except
	KindHomeserver                 // all of a homeserver's
	KindDevice                     // all of a device's that have no record
)

// JournalEntry is one revocation, as a process remembers it that has ordered
// it or heard of it.
type Revocation struct {
	Kind       Kind
	Homeserver string
	User       string           // not of a homeserver
	Session    caveat.SessionID // of a session
	Except     caveat.SessionID // of a user or a device; zero: none
	Device     DeviceTag        // of a device
	Generation uint64           // of a user or a homeserver: what it was raised to; of a session: its epoch; of a device: the mark that was lifted, or 0
	At         int64            // Unix ms
	Devices    bool             // of a user: only sessions that have a device

	// How the sessions ended. Entries of earlier versions do not have it: a
	// session of theirs ended softly, all of a user's or a homeserver's hard.
	Soft  bool
	Cause Cause
	Code  string

	// Keep is until when the store has to remember the revocation, and
	// ExceptKeep until when it has to remember the excepted session, in Unix
	// seconds; zero: for ever.
	Keep, ExceptKeep int64
}

// end returns how the sessions of an entry ended.
func (e *Revocation) End() End {
	return End{Soft: e.Soft, Cause: e.Cause, Code: e.Code, At: e.At}
}
