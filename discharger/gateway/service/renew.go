package service

import (
	"context"
	"sync"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
)

// renewals are the refreshes under way, by their request-ids: one party that
// presents a token several times at once makes one refresh.
type renewals struct {
	mu      sync.Mutex
	flights map[string]*call[client.Grant]
}

// Refresh gets the next discharge for a refresh token. While the service decides
// nothing, it waits.
func (g *Client) Refresh(ctx context.Context, w Waiter, session caveat.SessionID, request client.Request) (client.Grant, error) {
	a := &g.renewals
	a.mu.Lock()
	p := a.flights[request.RequestID]
	if p == nil || !p.join() {
		p = newCall[client.Grant]()
		p.join()
		if a.flights == nil {
			a.flights = make(map[string]*call[client.Grant])
		}
		a.flights[request.RequestID] = p
		go g.runRenewal(p, request, session)
	}
	a.mu.Unlock()
	return await(ctx, g, p, w)
}

func (g *Client) runRenewal(p *call[client.Grant], request client.Request, session caveat.SessionID) {
	defer close(p.done)
	p.run(g.Link, 0, func(ctx context.Context) (client.Grant, error) {
		// The epoch that this process saw in use has to be known before the older
		// token is judged.
		g.Epochs.Report(ctx, session)
		grant, err := g.API.Discharge(ctx, request)
		g.cfg.ObserveDischarge("refresh", err)
		return grant, err
	})
	a := &g.renewals
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flights[request.RequestID] == p {
		delete(a.flights, request.RequestID)
	}
}
