package gateway

import (
	"context"
	"net/http"
	"sync"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/token"
)

// renewals are the refreshes under way, by their request-ids: one party that
// presents a token several times at once makes one refresh.
type renewals struct {
	mu      sync.Mutex
	flights map[string]*pursuit[client.Grant]
}

// renew gets the next discharge for a refresh token. While the service decides
// nothing, it waits.
func (g *Gateway) renew(ctx context.Context, r *http.Request, x *exchange, t token.RefreshToken, text string) (client.Grant, error) {
	request := client.Request{
		Access: client.Access{Macaroon: t.Access}, Token: t.Token, RequestID: g.requestID(text, x.client, r.UserAgent()),
		ClientIP: x.client, UserAgent: r.UserAgent(),
	}
	a := &g.renewals
	a.mu.Lock()
	p := a.flights[request.RequestID]
	if p == nil || !p.join() {
		p = newPursuit[client.Grant]()
		p.join()
		if a.flights == nil {
			a.flights = make(map[string]*pursuit[client.Grant])
		}
		a.flights[request.RequestID] = p
		go g.runRenewal(p, request, x.identity.Session)
	}
	a.mu.Unlock()
	id := x.identity
	return await(ctx, g, p, g.waiterFor(x, func() error { return g.over(ctx, id) }))
}

func (g *Gateway) runRenewal(p *pursuit[client.Grant], request client.Request, session caveat.SessionID) {
	defer close(p.done)
	p.run(g.link, 0, func(ctx context.Context) (client.Grant, error) {
		// The epoch that this process saw in use has to be known before the older
		// token is judged.
		g.seen.report(ctx, session)
		grant, err := g.once.Discharge(ctx, request)
		g.metrics.fetched("refresh", err)
		return grant, err
	})
	a := &g.renewals
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flights[request.RequestID] == p {
		delete(a.flights, request.RequestID)
	}
}
