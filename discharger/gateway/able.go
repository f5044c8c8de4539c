package gateway

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// ability is the answer to the question whether the service can decide, for all
// requests that depend on it. A login is not passed on before: it would leave a
// device, an account, or a dead older token at the homeserver, and no session.
type ability struct {
	mu     sync.Mutex
	until  time.Time          // for which it can
	flight *pursuit[struct{}] // nil: the question is not under way
}

// ableLife is for how long the service is taken at its word.
const ableLife = time.Second

// askFirst asks before a login or registration is passed on.
func (g *Gateway) askFirst(ctx context.Context, x *exchange) *failure {
	w := g.waiterFor(x, nil)
	w.open = true
	if err := g.serviceAble(ctx, w); err != nil {
		return g.refusal(ctx, err)
	}
	return nil
}

// serviceAble returns nil if the service can decide. While it cannot, it waits.
func (g *Gateway) serviceAble(ctx context.Context, w waiter) error {
	a := &g.able
	a.mu.Lock()
	if g.cfg.Clock().Before(a.until) {
		a.mu.Unlock()
		return nil
	}
	p := a.flight
	if p == nil || !p.join() {
		p = newPursuit[struct{}]()
		p.join()
		a.flight = p
		go g.askAbility(p)
	}
	a.mu.Unlock()
	_, err := await(ctx, g, p, w)
	return err
}

func (g *Gateway) askAbility(p *pursuit[struct{}]) {
	defer close(p.done)
	p.run(g.link, 0, func(ctx context.Context) (struct{}, error) {
		err := g.once.Ready(ctx)
		var bad *client.BadRequestError
		if errors.As(err, &bad) && bad.Code == wire.CodeNotFound {
			_, err = g.once.Marks(ctx, "") // a service of an earlier version: its store can be read
		}
		g.metrics.fetched("ready", err)
		return struct{}{}, err
	})
	g.able.mu.Lock()
	defer g.able.mu.Unlock()
	if g.able.flight == p {
		g.able.flight = nil
		if p.err == nil {
			g.able.until = g.cfg.Clock().Add(ableLife)
		}
	}
}
