package storetest

import (
	"time"
)

// Awake runs f and returns for how long this process was there to run it: a
// machine that stands still for a while is not counted, since of the ticks that
// are missed only one comes late.
func Awake(f func()) time.Duration {
	const step = 10 * time.Millisecond
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for steps := time.Duration(0); ; steps++ {
		select {
		case <-done:
			return steps * step
		case <-tick.C:
		}
	}
}
