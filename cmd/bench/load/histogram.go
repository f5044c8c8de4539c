package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations, each to within 2 % of its value.
type Histogram struct {
	counts [40 << subBits]uint64
	total  uint64
}

// subBits is the number of bits kept after the highest one.
const subBits = 6

// Add counts a duration.
func (h *Histogram) Add(d time.Duration) {
	h.counts[slot(d)]++
	h.total++
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.total += other.total
}

// Count returns the number of durations counted.
func (h *Histogram) Count() uint64 { return h.total }

// Quantile returns the duration below which a share q of all lie, 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	for i, n := range h.counts {
		if rank < n {
			return value(i)
		}
		rank -= n
	}
	return h.Max()
}

// Max returns the longest duration, 0 if there are none.
func (h *Histogram) Max() time.Duration {
	for i := len(h.counts) - 1; i >= 0; i-- {
		if h.counts[i] > 0 {
			return value(i)
		}
	}
	return 0
}

// slot returns the index of a duration's count: its highest bit, followed by the
// next subBits.
func slot(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return min((shift<<subBits)+int(v>>shift), len(Histogram{}.counts)-1)
}

// value returns the middle of the durations of a slot.
func value(i int) time.Duration {
	if i < 1<<subBits {
		return time.Duration(i)
	}
	shift := i>>subBits - 1
	low := uint64(i-shift<<subBits) << shift
	return time.Duration(low + 1<<shift/2)
}
