package measure

import (
	"syscall"
	"time"
)

// pause waits for some time, to within some ten microseconds. The runtime's own
// timers are late by up to a millisecond when there is nothing else to do, which
// would be taken for the server's.
func pause(d time.Duration) {
	if d <= 0 {
		return
	}
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // a signal ends it early, which makes a request early
}
