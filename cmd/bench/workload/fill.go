package workload

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/discharger/caveat"
)

// Fill activates a number of sessions over some connections.
func (l *Logins) Fill(ctx context.Context, addr string, connections, sessions int, mode caveat.Mode) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var left atomic.Int64
	left.Store(int64(sessions))
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			if err := l.fillOne(ctx, addr, &left, mode); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (l *Logins) fillOne(ctx context.Context, addr string, left *atomic.Int64, mode caveat.Mode) error {
	c, err := load.Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	var buf []byte
	for left.Add(-1) >= 0 && ctx.Err() == nil {
		s, err := l.New(mode)
		if err != nil {
			return err
		}
		buf = l.AppendDischarge(buf[:0], s, "")
		status, body, err := c.Do(buf)
		if err != nil {
			return err
		}
		if err := Expect(http.StatusOK, status, body); err != nil {
			return err
		}
	}
	return nil
}
