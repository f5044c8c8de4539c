package outbox

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The time between two passes of reconciling follows a reload, in both directions.
func TestReloadReconcile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var period atomic.Int64
		b := &Outbox{reconfigured: make(chan struct{}, 1), gap: make(chan struct{}, 1), cfg: Config{
			Jitter:  func() float64 { return 0.5 },
			Periods: func() (reconcile, forget time.Duration) { return time.Duration(period.Load()), 0 },
		}}
		set := func(d time.Duration) {
			period.Store(int64(d))
			b.reconfigured <- struct{}{}
		}
		passes := make(chan time.Time)
		begin := time.Now()
		go func() {
			defer close(passes)
			for b.passDue(ctx) {
				passes <- time.Now()
			}
		}()
		wait := func(d time.Duration) {
			t.Helper()
			if got := (<-passes).Sub(begin); got != d {
				t.Errorf("a pass after %v, want %v", got, d)
			}
		}
		set(0)
		b.Missed() // without a period, this is nothing
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		<-b.gap
		begin = time.Now()
		set(time.Hour) // the day counts
		wait(0)
		time.Sleep(50 * time.Minute)
		set(2 * time.Hour)
		wait(2 * time.Hour)
		b.Missed()
		wait(2 * time.Hour)
		cancel()
		<-passes
	})
}
