package store

import (
	"bytes"
	"context"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
)

// Every revocation becomes an event in the feed of its homeserver, so that
// valid discharges are refused at once. A store encodes events by package
// revocation, keeps them until they are over, and returns them in order without
// reading them.
//
// The feed decides nothing. Each event repeats a fact of the records, which
// stays true, so events can be repeated, late, or in another order. A lost
// event leaves a discharge valid until it expires.

// FeedEntry is one event in a feed.
type FeedEntry struct {
	Position string // of this event; text without spaces or control characters
	Data     []byte // a line of JSON; earlier versions added a second one, which is not sent
}

// Line returns the part of the event that is sent to the homeserver.
func (e FeedEntry) Line() []byte {
	line, _, _ := bytes.Cut(e.Data, []byte{'\n'})
	return line
}

// Time returns when the sessions of the event were revoked. ok is false for data
// that is not an event.
func (e FeedEntry) Time() (at time.Time, ok bool) { return revocation.LineTime(e.Line()) }

// FeedPage is a batch of consecutive feed entries.
type FeedPage struct {
	// Gap is set if the feed does not continue at the position: the position is
	// unknown, or expired, or of another feed. Entries then begin with the
	// oldest one. It is also set at the start of a feed from which events were
	// dropped early.
	Gap     bool
	Entries []FeedEntry // empty: no entry yet
}

// Feed reads the events that a [Store] has published. Its methods may be called
// concurrently. An error is no statement about an event; a store that has lost
// its data returns [ErrLost].
type Feed interface {
	// ReadFeed returns the next events after a position, or the first ones if
	// it is empty. It does not wait.
	ReadFeed(ctx context.Context, homeserver, after string) (FeedPage, error)

	// AwaitFeed returns nil when entries may be available after the position;
	// wake-ups can be spurious. It returns the error of ctx when ctx ends.
	AwaitFeed(ctx context.Context, homeserver, after string) error
}
