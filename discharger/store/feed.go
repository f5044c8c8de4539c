package store

import (
	"bytes"
	"context"
	"time"
)

// Every revocation becomes an event in the feed of its homeserver, so that
// discharges which are still good are refused at once. To a store an event is
// opaque bytes that it keeps for a while and gives out in order; what is in
// them is in revoked.go.
//
// The feed never decides anything. Each event repeats a fact that the records
// hold and that stays true for ever, so events may come twice, late, or in
// another order without harm. An event that is lost costs this much: a
// discharge that was good when its session ended is good until it runs out.

// FeedEvent is one event on its way into a feed.
type FeedEvent struct {
	Data []byte // what the homeserver reads: a line of JSON; another line may follow that it is not sent

	// Until is when the event has served its purpose. It is kept until then,
	// unless there are too many.
	Until time.Time
}

// FeedEntry is one event in a feed.
type FeedEntry struct {
	Position string // of this event; text without spaces or control characters
	Data     []byte
}

// Line is what of the event is sent to the homeserver.
func (e FeedEntry) Line() []byte {
	line, _, _ := bytes.Cut(e.Data, []byte{'\n'})
	return line
}

// FeedPage is some of a feed, in order.
type FeedPage struct {
	// Gap is set if the feed does not continue at the position that was
	// asked for: it is not known, or not any more, or the feed is another
	// one. Entries then begin with the oldest one there is. It is also set if
	// the beginning was asked for, and events are missing there before
	// their time because there were too many.
	Gap     bool
	Entries []FeedEntry // none: nothing more is there yet
}

// A Feed reads what a [Store] has published. Every method may be called
// concurrently. An error says nothing about any event; a store that has lost
// its data answers [ErrLost].
type Feed interface {
	// ReadFeed returns the next events after a position, or the first ones
	// if it is empty. It does not wait for any.
	ReadFeed(ctx context.Context, homeserver, after string) (FeedPage, error)

	// AwaitFeed returns nil as soon as there may be more after the position,
	// perhaps for nothing, and ctx's error when ctx ends first.
	AwaitFeed(ctx context.Context, homeserver, after string) error
}
