package store

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// Store keeps the service's records: one per session, one per user, one per
// device and one per homeserver. To the store they are opaque bytes.
//
// Every method is one atomic step, may be called concurrently, and is safe to
// repeat: a caller that does not learn the outcome of a Swap sends the same one
// again, and a store that finds the result already there reports success.
//
// After an error the outcome of a write is unknown. Such an error is no
// statement about a session, and no client is refused because of it. A store
// that has lost its data returns [ErrLost] from Load, List and Ready until an
// operator has accepted the loss; it never reports the loss as missing records.
type Store interface {
	// Load reads a session's record together with those of its user, its homeserver and a
	// device, in one round trip; of the zero session and of the zero device there is no
	// record. Those of session, user and device are read at one instant, no earlier than
	// the call; the homeserver's may be as old as SwapHomeserver allows for.
	Load(ctx context.Context, user UserKey, session caveat.SessionID, device revocation.DeviceTag) (View, error)

	// List reads a user's record and all records of the user's sessions and
	// devices that have not expired, at one instant.
	List(ctx context.Context, user UserKey) (Listing, error)

	// Swap makes all changes of a Write if every record is the old or the new one of its
	// change. It reports whether it did; otherwise nothing was changed. A nil error means
	// that the result is as durable as the store promises.
	//
	// When it returns true, the events of its revocations are in the feed of the user's
	// homeserver, at least once; when false, they are not. After an error the changes may
	// have been made without the events; the same write, sent again, repairs that.
	Swap(ctx context.Context, w Write) (bool, error)

	// SwapHomeserver does the same for a homeserver's record, which never expires. When
	// it has returned true, no Load anywhere that starts later returns the old record.
	SwapHomeserver(ctx context.Context, homeserver string, old, new []byte, revocations ...revocation.Revocation) (bool, error)

	// Publish appends the events of revocations to a homeserver's feed, as
	// durably as a write that revokes. Sent again, it appends them again.
	Publish(ctx context.Context, homeserver string, revocations ...revocation.Revocation) error

	// Now returns the store's time, which marks carry: with Redis, that of the primary.
	Now(ctx context.Context) (time.Time, error)

	// Ready returns nil if the store answers, holds its data and accepts a write.
	Ready(ctx context.Context) error

	// Close releases the resources of the store. No other method may be running
	// or be called after it.
	Close() error
}

// ErrLost is returned by a [Store] whose data is gone, or is not the data of before.
var ErrLost = errors.New("the store has lost its data")

// UserKey identifies a user of one homeserver. Users of different homeservers
// share nothing, even under the same name.
type UserKey struct {
	Homeserver string // as configured
	User       string // as the homeserver names it
}

// View is the result of [Store.Load]. A nil slice means that there is no
// record, or that it has expired.
type View struct {
	Session, User, Homeserver, Device []byte
	Losses                            Losses
}

// Listing is the result of [Store.List].
type Listing struct {
	User     []byte
	Sessions map[caveat.SessionID][]byte
	Devices  map[revocation.DeviceTag][]byte
}

// Write is a set of changes to the records of one user, made all or none.
type Write struct {
	User    UserKey
	Changes []Change

	// Revocations are the sessions that the write ends, also if it only repeats a stored
	// revocation. Such a write is acknowledged when it has the durability configured for
	// revocations. A store with a journal writes them there first, except those with
	// Only. The events of those that have one are published.
	Revocations []revocation.Revocation
}

// Change replaces one record: of a session, of a device, or, if both are zero, the user's
// own. Records are never empty: nil stands for "no record", in Old as in New.
type Change struct {
	Session caveat.SessionID
	Device  revocation.DeviceTag // not with Session
	Old     []byte
	New     []byte

	// Expires is when the store may forget New; zero means never. Records of a user and
	// of devices additionally stay as long as any of the user's sessions.
	Expires time.Time
}

// Losses are the times, Unix ms by the store's clock, from which the store's data is
// complete; 0: no loss. Stores of versions that did not record losses have none.
type Losses struct {
	// Missing is when the store was created, or an operator last accepted the loss of
	// its data. A session minted before, without a record, may have been revoked. Only
	// a View without a record of the session must have it.
	Missing int64

	// All is when an operator last accepted data that may lack revocations.
	// Sessions that were activated before it may have been revoked.
	All int64
}

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
	// Gap is set if the feed does not continue at the position: the position is unknown,
	// or expired, or of another feed. Entries then begin with the oldest one. It is also
	// set at the start of a feed from which events were dropped early.
	Gap     bool
	Entries []FeedEntry // empty: no entry yet
}

// Feed reads the events that a [Store] has published: one for each revocation, in the
// feed of its homeserver, so that valid discharges are refused at once. A store keeps
// an event until it is over, and does not read it. An event repeats a fact of the
// records, so it can be repeated, late, or in another order; a lost one leaves a
// discharge valid until it expires.
//
// The methods may be called concurrently. An error is no statement about an event; a
// store that has lost its data returns [ErrLost].
type Feed interface {
	// ReadFeed returns the next events after a position, or the first ones if
	// it is empty. It does not wait.
	ReadFeed(ctx context.Context, homeserver, after string) (FeedPage, error)

	// AwaitFeed returns nil when entries may be available after the position;
	// wake-ups can be spurious. It returns the error of ctx when ctx ends.
	AwaitFeed(ctx context.Context, homeserver, after string) error
}

// ClockSlack is how far apart the clocks of a service's processes may be.
const ClockSlack = 10 * time.Second

// Replayer makes records show revocations that the store may have lost. A store
// with a journal calls it when its primary has changed, or when its file is an
// older copy, and is fenced until it returns nil. It reads records, which a store
// cannot; package failover implements it.
type Replayer interface {
	// Replay makes the records of a store show journaled revocations, and
	// publishes the events of those that they did not show. now is the store's
	// time. It can be repeated.
	Replay(ctx context.Context, t ReplayTarget, journaled []revocation.Revocation, now time.Time) (Replayed, error)
}

// Replayed is the result of a replay.
type Replayed struct {
	Records  int                     // changed
	Events   int                     // published for records that needed no change
	Restored []revocation.Revocation // that the records did not show
}

// ReplayTarget is a store during a replay. Its methods work while the store is
// fenced, may be called concurrently, journal nothing, and do not wait for
// replicas, which a primary that was just promoted may lack.
type ReplayTarget interface {
	List(ctx context.Context, user UserKey) (Listing, error)
	Swap(ctx context.Context, w Write) (bool, error)
	LoadHomeserver(ctx context.Context, homeserver string) ([]byte, error)
	SwapHomeserver(ctx context.Context, homeserver string, old, new []byte, revocations ...revocation.Revocation) (bool, error)
	Publish(ctx context.Context, homeserver string, revocations ...revocation.Revocation) error

	// PublishMissing publishes the events that the feeds lack although the
	// records show their revocations, and returns their number. A store that
	// writes both in one transaction has none.
	PublishMissing(ctx context.Context, revocations []revocation.Revocation) (int, error)
}
