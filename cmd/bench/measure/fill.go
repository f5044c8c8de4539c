package measure

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/caveat"
)

// fill activates as many sessions, over some connections, and forgets them.
func (l *logins) fill(ctx context.Context, addr string, connections, sessions int, mode caveat.Mode) error {
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

func (l *logins) fillOne(ctx context.Context, addr string, left *atomic.Int64, mode caveat.Mode) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.close()
	var buf []byte
	for left.Add(-1) >= 0 && ctx.Err() == nil {
		s, err := l.new(mode)
		if err != nil {
			return err
		}
		buf = l.appendDischarge(buf[:0], s, "")
		status, body, err := c.do(buf)
		if err != nil {
			return err
		}
		if err := expect(http.StatusOK, status, body); err != nil {
			return err
		}
	}
	return nil
}
