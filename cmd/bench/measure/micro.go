package measure

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// operation is an operation of microseconds, repeated in this process.
type operation struct {
	name string
	do   func() error
}

// cost is the cost of one operation.
type cost struct {
	CPU    time.Duration
	Allocs float64
	Times  uint64        // it was repeated
	Wall   time.Duration // for all of them
}

// measure repeats the operation for about a duration of processor time.
func (o operation) measure(long time.Duration) (cost, error) {
	var before, after runtime.MemStats
	for n := 1; ; n *= 2 {
		runtime.ReadMemStats(&before)
		began := time.Now()
		start, err := cpuTime()
		if err != nil {
			return cost{}, err
		}
		for range n {
			if err := o.do(); err != nil {
				return cost{}, fmt.Errorf("%s: %w", o.name, err)
			}
		}
		end, err := cpuTime()
		if err != nil {
			return cost{}, err
		}
		runtime.ReadMemStats(&after)
		if took := end - start; took >= long {
			return cost{
				CPU: took / time.Duration(n), Allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
				Times: uint64(n), Wall: time.Since(began),
			}, nil
		}
	}
}

// cpuTime returns the processor time used by this process.
func cpuTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// against measures two operations in alternating rounds. The ratio is of the
// first to the second.
func against(ctx context.Context, a, b operation, rounds int, long time.Duration) (ours, theirs cost, ratio Spread, err error) {
	var mine, other, both []float64
	for range rounds {
		if err := ctx.Err(); err != nil {
			return ours, theirs, ratio, err
		}
		if ours, err = a.measure(long); err != nil {
			return ours, theirs, ratio, err
		}
		if theirs, err = b.measure(long); err != nil {
			return ours, theirs, ratio, err
		}
		mine, other = append(mine, float64(ours.CPU)), append(other, float64(theirs.CPU))
		both = append(both, float64(ours.CPU)/float64(theirs.CPU))
	}
	ours.CPU, theirs.CPU = time.Duration(spreadOf(mine).Median), time.Duration(spreadOf(other).Median)
	return ours, theirs, spreadOf(both), nil
}
