package service

import (
	"context"
	"sync"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
)

// renewals are the refreshes in progress by request id: concurrent refreshes of one
// party share a call.
type renewals struct {
	mu      sync.Mutex
	flights map[string]*call[client.Grant]
}

// Refresh returns the next discharge for a refresh token. It waits while the service
// does not decide.
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
		// The service needs the epoch in use to decide about an older token.
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
