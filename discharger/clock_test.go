package discharger

import (
	"log/slog"
	"testing"
	"time"
)

// machine is a wall clock that a test sets, and a monotonic clock.
type machine struct {
	now     time.Time
	elapsed time.Duration
}

func (m *machine) wait(d time.Duration) { m.now, m.elapsed = m.now.Add(d), m.elapsed+d }
func (m *machine) set(d time.Duration)  { m.now = m.now.Add(d) }

func newMachine() (*machine, *clock) {
	m := &machine{now: time.Unix(1_790_000_000, 0), elapsed: 5 * time.Second}
	c := newClock(func() time.Time { return m.now }, func() time.Duration { return m.elapsed }, time.Minute, slog.New(slog.DiscardHandler))
	return m, c
}

func TestClock(t *testing.T) {
	t.Parallel()
	believed := func(t *testing.T, c *clock, want bool) {
		t.Helper()
		if err := c.check(); (err == nil) != want {
			t.Fatalf("check: %v; want accepted %v", err, want)
		}
	}
	for _, jump := range []time.Duration{40 * 24 * time.Hour, -40 * 24 * time.Hour, 2 * time.Minute, -2 * time.Minute} {
		t.Run(jump.String()+" for seconds", func(t *testing.T) {
			m, c := newMachine()
			m.wait(time.Hour)
			believed(t, c, true)
			m.set(jump)
			for range 5 {
				believed(t, c, false)
				m.wait(2 * time.Second)
			}
			m.set(-jump)
			believed(t, c, true)
		})
		t.Run(jump.String()+" for good", func(t *testing.T) {
			m, c := newMachine()
			m.set(jump)
			believed(t, c, false)
			m.wait(clockSettles - time.Second)
			believed(t, c, false)
			m.wait(time.Second)
			believed(t, c, true)
			m.wait(time.Hour)
			believed(t, c, true)
			m.set(-jump) // another jump
			believed(t, c, false)
		})
	}
	t.Run("two jumps, the second one settles", func(t *testing.T) {
		m, c := newMachine()
		m.set(time.Hour)
		believed(t, c, false)
		m.wait(clockSettles - time.Second)
		m.set(time.Hour)
		believed(t, c, false)
		m.wait(clockSettles - time.Second)
		believed(t, c, false)
		m.wait(time.Second)
		believed(t, c, true)
	})
	t.Run("between two checks", func(t *testing.T) {
		m, c := newMachine()
		m.set(time.Hour)
		m.wait(time.Hour)
		believed(t, c, false) // no check has seen it run evenly
		m.wait(clockSettles)
		believed(t, c, true)
	})
	t.Run("drift and slewing", func(t *testing.T) {
		m, c := newMachine()
		for range 100 {
			m.wait(time.Minute)
			m.set(30 * time.Second)
			believed(t, c, true)
		}
	})
	t.Run("a time without a monotonic reading is accepted", func(t *testing.T) {
		now := time.Unix(1_790_000_000, 0)
		c := newClock(func() time.Time { return now }, nil, time.Minute, slog.New(slog.DiscardHandler))
		now = now.Add(40 * 24 * time.Hour)
		believed(t, c, true)
	})
	t.Run("the machine's own", func(t *testing.T) {
		c := newClock(nil, nil, time.Minute, slog.New(slog.DiscardHandler))
		believed(t, c, true)
	})
}
