package server

import (
	"syscall"
	"time"
	"unsafe"
)

// cpuOf returns the processor time used by a process, to the nanosecond. /proc has
// hundredths of a second, too coarse for a short round.
func cpuOf(pid int) (time.Duration, bool) {
	const scheduled = 2 // CPUCLOCK_SCHED, see clock_getcpuclockid(3)
	var t syscall.Timespec
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(^pid<<3|scheduled), uintptr(unsafe.Pointer(&t)), 0)
	return time.Duration(t.Nano()), errno == 0
}
