package testkit

import (
	"testing"
	"time"
)

// Eventually waits until another goroutine or process makes ok true, and ends the test
// after two minutes. In a bubble of testing/synctest call synctest.Wait instead.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	const limit = 2 * time.Minute
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("not after %v: %s", limit, what)
		}
	}
}
