package load

import (
	"syscall"
	"time"
)

// Pause waits for d, to within some ten microseconds. Timers of the runtime are
// late by up to a millisecond on an idle machine, which would count as latency of
// the server.
func Pause(d time.Duration) {
	if d <= 0 {
		return
	}
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal ends it early, and a request is early
}
