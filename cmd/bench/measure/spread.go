package measure

import (
	"fmt"
	"slices"
)

// Spread is a number over several rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spreadOf sorts the numbers, of which there is at least one.
func spreadOf(all []float64) Spread {
	slices.Sort(all)
	n := len(all)
	return Spread{Median: (all[(n-1)/2] + all[n/2]) / 2, Min: all[0], Max: all[n-1]}
}

// String returns the median, followed by the others in brackets.
func (s Spread) String() string {
	return fmt.Sprintf("%s [%s %s]", short(s.Median), short(s.Min), short(s.Max))
}

// short formats a number with three digits, or with all those before the point.
func short(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// ratios divides f of the rounds of two subjects, pair by pair. Pairs with an unknown
// number, which is zero, are left out.
func ratios(a, b *subject, f func(*Sample) float64) (Spread, bool) {
	var all []float64
	for i := range min(len(a.samples), len(b.samples)) {
		x, y := f(&a.samples[i]), f(&b.samples[i])
		if x > 0 && y > 0 {
			all = append(all, x/y)
		}
	}
	if len(all) == 0 {
		return Spread{}, false
	}
	return spreadOf(all), true
}
