package discharger

import (
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// Mint lets benchmarks mint without a service.
var Mint = mint

// SetElapsed gives a service the monotonic clock of a test, whose time has none.
func SetElapsed(c *Config, elapsed func() time.Duration) { c.elapsed = elapsed }

// ClockSettles is how long a clock that was set has to go on evenly.
const ClockSettles = clockSettles

// AnnouncedBytes bounds what is remembered of published events.
const AnnouncedBytes = publishedBytes

// Announced returns how many bytes are remembered after so many events of users
// with long names.
func Announced(n int) (int, error) {
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
