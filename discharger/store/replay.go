package store

import (
	"context"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
)

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
