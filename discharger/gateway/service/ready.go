package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// readiness caches that the service is ready. A login is not passed on before: it would
// leave a device, an account, or a dead older token at the homeserver, and no session.
type readiness struct {
	mu     sync.Mutex
	until  time.Time       // ready until then
	flight *call[struct{}] // nil: no check in progress
}

// ReadyFor is how long the answer that the service is ready is cached.
const ReadyFor = time.Second

// Ready blocks until the service is ready, or the waiter ends.
func (g *Client) Ready(ctx context.Context, w Waiter) error {
	a := &g.ready
	a.mu.Lock()
	if g.cfg.Clock().Before(a.until) {
		a.mu.Unlock()
		return nil
	}
	p := a.flight
	if p == nil || !p.join() {
		p = newCall[struct{}]()
		p.join()
		a.flight = p
		go g.checkReady(p)
	}
	a.mu.Unlock()
	_, err := await(ctx, g, p, w)
	return err
}

func (g *Client) checkReady(p *call[struct{}]) {
	defer close(p.done)
	p.run(g.Link, 0, func(ctx context.Context) (struct{}, error) {
		err := g.API.Ready(ctx)
		var bad *client.BadRequestError
		if errors.As(err, &bad) && bad.Code == wire.CodeNotFound {
			_, err = g.API.Marks(ctx, "") // a service of an earlier version, whose store can be read
		}
		g.cfg.ObserveDischarge("ready", err)
		return struct{}{}, err
	})
	g.ready.mu.Lock()
	defer g.ready.mu.Unlock()
	if g.ready.flight == p {
		g.ready.flight = nil
		if p.err == nil {
			g.ready.until = g.cfg.Clock().Add(ReadyFor)
		}
	}
}
