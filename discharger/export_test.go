package discharger

import (
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// Mint lets benchmarks mint without a service.
var Mint = mint

// SetElapsed sets the monotonic clock of a service.
func SetElapsed(c *Config, elapsed func() time.Duration) { c.elapsed = elapsed }

// ClockSettles is how long a clock must run evenly after a jump.
const ClockSettles = clockSettles

// PublishedBytes bounds the memory for published events.
const PublishedBytes = publishedBytes

// PublishedSize returns the memory for published events after n events of users with long
// names.
func PublishedSize(n int) (int, error) {
	var s Service
	var err error
	if s.published, err = newPublished(); err != nil {
		return 0, err
	}
	for i := range n {
		s.remember([]revocation.Revocation{{
			Kind: revocation.KindDevice, User: strings.Repeat("u", caveat.MaxUser), At: int64(i),
			Notice: revocation.Notice{Until: 1, Device: strings.Repeat("d", 2048)},
		}})
	}
	return s.published.Bytes(), nil
}

// Clock returns the clock of a configuration.
func (c *Config) Clock() func() time.Time { return c.now }
