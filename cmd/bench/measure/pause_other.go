//go:build !linux

package measure

import "time"

// pause waits for some time, as exactly as the runtime does.
func pause(d time.Duration) { time.Sleep(d) }
