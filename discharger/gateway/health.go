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

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// Health has the errors of the gateway's parts; nil: the part works.
type Health struct {
	// Homeserver: without it, every request is answered 502.
	Homeserver error
	// Outbox is the error of the last write probe. Without the file, sessions work, but
	// pending calls are lost: ends of sessions that are still to be sent to the service,
	// and devices that are still to be logged out.
	Outbox error
	// Service is why the feed is not current. Without the service, a session goes on
	// until its discharge expires. Another gateway is no better off.
	Service error
}

// Ready reports whether a load balancer should send requests to this gateway: the
// homeserver answers, and the outbox can be written. The service does not count:
// clients whose discharges have not expired are not to be sent away with it.
func (h Health) Ready() bool { return h.Homeserver == nil && h.Outbox == nil }

// Health requests something of the homeserver and writes to the outbox, unless that was
// done a moment ago, and waits no longer than ctx or two seconds.
func (g *Gateway) Health(ctx context.Context) Health {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.timeouts.health)
	defer cancel()
	now := g.cfg.clock()
	h := Health{Homeserver: g.homeserverProbe.ask(ctx, now), Outbox: g.outboxProbe.ask(ctx, now)}
	if s := g.feed.Status(); !s.Connected || !s.Current {
		h.Service = errSilent
		if !s.LastContact.IsZero() {
			h.Service = fmt.Errorf("%w, last contact %s ago", errSilent, s.Staleness.Truncate(time.Second))
		}
	}
	return h
}

const (
	homeserverLife  = time.Second      // of an answer of the homeserver's, to those who ask how it is
	outboxProbeLife = 10 * time.Second // of a successful write: it is one to the disk
	failureLife     = time.Second
)

var (
	errSilent = errors.New("not connected to its feed of revocations")
	errNoTime = errors.New("no answer in time")
)

func (g *Gateway) newProbes() {
	g.homeserverProbe = probe{life: homeserverLife, timeouts: g.cfg.timeouts.health, check: func(ctx context.Context) error {
		status, _, err := g.homeserver.Get(ctx, upstream.PathVersions, "", upstream.Origin{})
		if err == nil && status >= 500 {
			err = &upstream.StatusError{Status: status}
		}
		return err
	}}
	g.outboxProbe = probe{life: outboxProbeLife, timeouts: g.cfg.timeouts.health, check: func(context.Context) error { return g.outbox.Store.Probe(g.cfg.clock()) }}
}

// probe tries something out for all who ask whether it works, and remembers for
// a moment whether it did: those who ask are many, and come at any rate.
type probe struct {
	life     time.Duration // for which a success counts
	timeouts time.Duration // with one try
	check    func(context.Context) error

	mu    sync.Mutex
	until time.Time     // for which err counts
	err   error         // of the latest try
	trial chan struct{} // closed when the one under way has ended; nil: there is none
}

// ask says whether it works. A try goes on when nobody waits for it any more.
func (p *probe) ask(ctx context.Context, now time.Time) error {
	p.mu.Lock()
	if now.Before(p.until) {
		defer p.mu.Unlock()
		return p.err
	}
	if p.trial == nil {
		p.trial = make(chan struct{})
		go p.try(context.WithoutCancel(ctx), now)
	}
	trial := p.trial
	p.mu.Unlock()
	select {
	case <-trial:
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.err
	case <-ctx.Done():
		return errNoTime
	}
}

func (p *probe) try(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, p.timeouts)
	defer cancel()
	err := p.check(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.until = err, now.Add(p.life)
	if err != nil {
		p.until = now.Add(failureLife)
	}
	close(p.trial)
	p.trial = nil
}

// upstreamPause is between two attempts to ask the homeserver something at the
// start.
const upstreamPause = 5 * time.Second

// inspectUpstream asks the homeserver once how clients log in, and warns if the
// gateway can do nothing for them: where logins are delegated to an
// authentication service, tokens do not come from the homeserver.
func (g *Gateway) inspectUpstream(ctx context.Context) {
	for first := true; ; first = false {
		status, body, err := g.homeserver.Get(ctx, upstream.PathLoginFlows, "", upstream.Origin{})
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && status == http.StatusNotFound, err == nil && delegated(body):
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the homeserver delegates logins to an authentication service: "+
				"tokens that come from there are passed on as they are, and the gateway cannot revoke them")
			return
		case err == nil && status == http.StatusOK:
			return
		case first:
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the homeserver does not answer yet", slog.String("upstream", g.cfg.Upstream),
				slog.Int("status", status), slog.Any("error", err))
		}
		if !sleepInspect(ctx, upstreamPause) {
			return
		}
	}
}

// delegated reads the ways to log in.
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

// sleep waits, and reports whether ctx goes on.
func sleepInspect(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// refuseLoop returns the answer to a request that passed this gateway before; nil:
// it did not. The answer has the name too, for CheckUpstream.
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

// CheckUpstream asks upstream something, and returns
// [upstream.ErrLoop] if the request comes
// back. The gateway must be serving. A homeserver that does not answer is no error:
// it may come later.
func (g *Gateway) CheckUpstream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.timeouts.health)
	defer cancel()
	if _, _, err := g.homeserver.Get(ctx, upstream.PathVersions, "", upstream.Origin{}); errors.Is(err, upstream.ErrLoop) {
		return err
	}
	return nil
}
