package session

import (
	"time"
)

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
