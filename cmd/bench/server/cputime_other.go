//go:build !linux

package server

import "time"

// cpuOf returns false: only Linux is supported.
func cpuOf(int) (time.Duration, bool) { return 0, false }
