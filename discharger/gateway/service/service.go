// Package service makes the calls to the service on which requests of clients
// depend: discharges of sessions in mode held, refreshes, reports of epochs, and
// whether the service is ready.
//
// A call is decided if the service answers, with a grant or a refusal. A call that is
// not decided is repeated, with growing intervals, as long as requests wait for its
// result: many clients repeat a refused request at once, and some end their session at
// the first unexpected answer. All requests that need one result share one call, see
// [Do]. Waiting is bounded per request and by an [admission.WaitingRoom]; a request
// stops waiting when its session ends, its client leaves, or the gateway drains.
//
// [Link] observes calls and the feed, and ends every pause when the service decides
// again. Caches save calls and change no answer.
package service

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/wire"
)

// Config configures a [Client]. Every field is required.
type Config struct {
	Client *client.Client // makes one attempt per call
	Caches *cache.Budget  // of discharges and verified tokens
	Log    *slog.Logger
	Clock  func() time.Time
	Jitter func() float64 // in [0, 1)

	ObserveDischarge func(op string, err error) // after a call for a discharge
	ObserveSeen      func(n int, err error)     // after a report of epochs
}

// Client makes the calls to the service on which requests depend. It may be used
// concurrently.
type Client struct {
	cfg        Config
	API        *client.Client
	Link       *Link
	Waiting    *admission.WaitingRoom
	readyUntil atomic.Int64                  // Unix ns
	checks     flights[struct{}, struct{}]   // whether the service is ready
	refreshes  flights[string, client.Grant] // by request id
	Discharges *Discharges
	Epochs     *Epochs
}

// New returns a client. It makes no call.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, API: cfg.Client, Link: newLink(cfg.Jitter, cfg.Clock), Waiting: admission.NewWaitingRoom()}
	var err error
	if c.Discharges, err = newDischarges(c); err != nil {
		return nil, err
	}
	if c.Epochs, err = newEpochs(c); err != nil {
		return nil, err
	}
	return c, nil
}

// ReadyFor is how long the answer that the service is ready is cached.
const ReadyFor = time.Second

// Ready blocks until the service is ready, or the waiter ends. A login is not passed on
// before: it would leave a device, an account, or a dead older token at the homeserver,
// and no session.
func (g *Client) Ready(ctx context.Context, w Waiter) error {
	if g.cfg.Clock().UnixNano() < g.readyUntil.Load() {
		return nil
	}
	_, err := g.checks.await(ctx, g, w, struct{}{}, func(ctx context.Context) (struct{}, error) {
		err := g.API.Ready(ctx)
		var bad *client.BadRequestError
		if errors.As(err, &bad) && bad.Code == wire.CodeNotFound {
			_, err = g.API.Marks(ctx, "") // a service of an earlier version, whose store can be read
		}
		if g.cfg.ObserveDischarge("ready", err); err == nil {
			g.readyUntil.Store(g.cfg.Clock().Add(ReadyFor).UnixNano())
		}
		return struct{}{}, err
	})
	return err
}

// Refresh returns the next discharge for a refresh token. It waits while the service
// does not decide. Concurrent refreshes of one party share a call.
func (g *Client) Refresh(ctx context.Context, w Waiter, session caveat.SessionID, request client.Request) (client.Grant, error) {
	return g.refreshes.await(ctx, g, w, request.RequestID, func(ctx context.Context) (client.Grant, error) {
		// The service needs the epoch in use to decide about an older token.
		g.Epochs.Report(ctx, session)
		grant, err := g.API.Discharge(ctx, request)
		g.cfg.ObserveDischarge("refresh", err)
		return grant, err
	})
}
