package discharger

import "time"

// Mint lets benchmarks mint without a service.
var Mint = mint

// SetElapsed gives a service the monotonic clock of a test, whose time has none.
func SetElapsed(c *Config, elapsed func() time.Duration) { c.elapsed = elapsed }

// ClockSettles is how long a clock that was set has to go on evenly.
const ClockSettles = clockSettles

// MaxAnnouncements is the size of half of what is remembered.
const MaxAnnouncements = maxAnnouncements

// Announcements counts what is left of so many.
func Announcements(n int) int {
	var m announcements
	for i := range n {
		m.add([]revoked{{before: int64(i)}})
	}
	return len(m.young) + len(m.old)
}
