package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// Health holds the error of each part of the gateway; nil: the part works.
type Health struct {
	// Homeserver is the error of the last probe. Without the homeserver, every request
	// is answered 502.
	Homeserver error
	// Outbox is the error of the last write probe. Without the file, sessions work, but
	// pending revocations and logouts of devices are lost.
	Outbox error
	// Service reports that the feed is not current. Without the service, sessions
	// continue until their discharges expire. Other gateways have the same problem.
	Service error
}

// Ready reports whether a load balancer should send requests to this gateway: the
// homeserver answers and the outbox is writable. The service does not count: clients
// with unexpired discharges are served without it.
func (h Health) Ready() bool { return h.Homeserver == nil && h.Outbox == nil }

// Health probes the homeserver and the outbox, unless a recent result is cached. It
// returns within two seconds.
func (g *Gateway) Health(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.timeouts.health)
	defer cancel()
	now := g.cfg.clock()
	h := Health{Homeserver: g.homeserverProbe.result(ctx, now), Outbox: g.outboxProbe.result(ctx, now)}
	if s := g.feed.Status(); !s.Connected || !s.Current {
		h.Service = errFeedStale
		if !s.LastContact.IsZero() {
			h.Service = fmt.Errorf("%w, last contact %s ago", errFeedStale, s.Staleness.Truncate(time.Second))
		}
	}
	return h
}

const (
	homeserverLife  = time.Second      // of a successful probe
	outboxProbeLife = 10 * time.Second // of a successful write, which costs an fsync
	failureLife     = time.Second      // of a failed probe or write
)

var (
	errFeedStale    = errors.New("not connected to its feed of revocations")
	errProbeTimeout = errors.New("timed out")
)

func (g *Gateway) probeHomeserver(ctx context.Context) error {
	status, _, err := g.homeserver.Get(ctx, upstream.PathVersions, "", upstream.Origin{})
	if err == nil && status >= 500 {
		err = &upstream.StatusError{Status: status}
	}
	return err
}

// probe shares one check, and its result for a while, among all callers.
type probe struct {
	life    time.Duration // of a successful result
	timeout time.Duration // of one check
	check   func(context.Context) error

	mu      sync.Mutex
	until   time.Time     // end of life of err
	err     error         // of the latest check
	running chan struct{} // closed when the current check has ended; nil: none runs
}

// result returns the cached result or that of a new check, which continues after ctx is
// done.
func (p *probe) result(ctx context.Context, now time.Time) error {
	p.mu.Lock()
	if now.Before(p.until) {
		defer p.mu.Unlock()
		return p.err
	}
	if p.running == nil {
		p.running = make(chan struct{})
		go p.try(context.WithoutCancel(ctx), now)
	}
	running := p.running
	p.mu.Unlock()
	select {
	case <-running:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-ctx.Done():
		return errProbeTimeout
	}
}

func (p *probe) try(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	err := p.check(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.until = err, now.Add(p.life)
	if err != nil {
		p.until = now.Add(failureLife)
	}
	close(p.running)
	p.running = nil
}

// upstreamPause is the pause between two requests of [Gateway.inspectUpstream].
const upstreamPause = 5 * time.Second

// inspectUpstream reads the homeserver's login flows once, and warns if logins are
// delegated to an authentication service: then tokens do not come from the homeserver,
// and the gateway cannot replace them.
func (g *Gateway) inspectUpstream(ctx context.Context) {
	warned := false
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		status, body, err := g.homeserver.Get(ctx, upstream.PathLoginFlows, "", upstream.Origin{})
		switch {
		case err == nil && status == http.StatusNotFound, err == nil && delegated(body):
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "homeserver delegates logins to an authentication service, "+
				"whose tokens are forwarded unchanged and cannot be revoked")
			return struct{}{}, nil
		case err == nil && status == http.StatusOK, ctx.Err() != nil:
			return struct{}{}, nil
		case !warned:
			warned = true
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "login flows of the homeserver cannot be read, retrying",
				slog.String("upstream", g.cfg.Upstream), slog.Int("status", status), slog.Any("error", err))
		}
		return struct{}{}, &upstream.StatusError{Status: status}
	}, backoff.WithBackOff(backoff.NewConstantBackOff(upstreamPause)), backoff.WithMaxElapsedTime(0))
}

// delegated reports whether login flows name an authentication service (MSC3824).
func delegated(body jsonbody.Object) bool {
	var flows []map[string]any
	if err := json.Unmarshal(body.Get("flows"), &flows); err != nil {
		return false
	}
	for _, f := range flows {
		if f["oauth_aware_preferred"] == true || f["org.matrix.msc3824.delegated_oidc_compatibility"] == true {
			return true
		}
	}
	return false
}

// refuseLoop refuses a request that this gateway has forwarded before. The response
// contains the gateway's name, for [Gateway.CheckUpstream].
func (g *Gateway) refuseLoop(w http.ResponseWriter, r *http.Request) *reply.Refusal {
	if !g.homeserver.Looped(r.Header) {
		return nil
	}
	g.cfg.Log.LogAttrs(r.Context(), slog.LevelError, "request came back, upstream leads to this gateway",
		slog.String("upstream", g.cfg.Upstream))
	g.homeserver.Answer(w.Header())
	return &reply.Refusal{
		Status: http.StatusLoopDetected, Code: matrix.CodeUnknown, Outcome: reply.OutcomeUpstream,
		Message: "The gateway's upstream leads back to the gateway.",
	}
}

// CheckUpstream requests something of upstream, and returns [upstream.ErrLoop] if the
// request comes back to this gateway, which must be serving. An unreachable homeserver
// is no error: it may start later.
func (g *Gateway) CheckUpstream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.timeouts.health)
	defer cancel()
	if err := g.probeHomeserver(ctx); errors.Is(err, upstream.ErrLoop) {
		return err
	}
	return nil
}
