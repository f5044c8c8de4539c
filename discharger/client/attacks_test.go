package client

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A hundred thousand clients get their discharges in the same second, because
// the service is back after an outage. They do not come back as one herd.
func TestAttackHerdAfterOutage(t *testing.T) {
	t.Parallel()
	const clients, lifetime, rounds = 100_000, 5 * time.Minute, 3
	random := rand.New(rand.NewPCG(1, 2))
	seconds := make([]int, rounds*int(lifetime/time.Second))
	for range clients {
		for at := time.Duration(0); ; {
			at += lifetime - refreshAhead(lifetime, random.Float64())
			if int(at/time.Second) >= len(seconds) {
				break
			}
			seconds[at/time.Second]++
		}
	}
	total := 0
	for _, n := range seconds {
		total += n
	}
	if peak, mean := slices.Max(seconds), total/len(seconds); peak > 3*mean {
		t.Errorf("%d a second at the worst, %d on average", peak, mean)
	}
}
