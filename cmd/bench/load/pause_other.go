//go:build !linux

package load

import "time"

// Pause waits for d, as exactly as the runtime does.
func Pause(d time.Duration) { time.Sleep(d) }
