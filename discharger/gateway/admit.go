package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/clientaddr"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/service"
)

// limitKey returns the network that a client's address is counted by. It is invalid,
// and unlimited, for a trusted proxy's own address, which may stand for all clients.
func (g *Gateway) limitKey(client netip.Addr) netip.Prefix {
	if slices.ContainsFunc(g.live().TrustedProxies, func(p netip.Prefix) bool { return p.Contains(client) }) {
		return netip.Prefix{}
	}
	return admission.Peer(client)
}

// admit takes a place for a request.
func (g *Gateway) admit(x *exchange) *reply.Refusal {
	s := admission.Brief
	if x.match.Route.Poll {
		s = admission.Lasting
	}
	if g.limiter.Take(&x.place, g.limitKey(x.client), s) {
		return nil
	}
	return tooMany(x.route)
}

// tooMany returns the refusal of a request beyond a limit.
func tooMany(r matrix.Effect) *reply.Refusal {
	f := &reply.Refusal{
		Status: http.StatusTooManyRequests, Code: matrix.CodeLimitExceeded, Message: "Too many requests at a time. Try again later.",
		RetryAfter: admission.RetryAfter, Outcome: reply.OutcomeLimited,
	}
	if r == matrix.Refresh {
		f.Status = http.StatusServiceUnavailable
		return f.Text()
	}
	return f
}

// parseBody parses a body, large ones one at a time.
func (g *Gateway) parseBody(data []byte) (o jsonbody.Object, err error) {
	g.bodies.InTurn(data, func(data []byte) { o, err = jsonbody.Parse(data) })
	return o, err
}

// drained returns the refusal of a long poll that [Gateway.Drain] ended.
func drained() *reply.Refusal {
	return &reply.Refusal{
		Status: http.StatusServiceUnavailable, Code: matrix.CodeUnknown, Outcome: reply.OutcomeUnavailable, RetryAfter: admission.PollRetryAfter,
		Message: "The server is restarting. Try again.",
	}
}

// tooSlow returns the refusal of a request whose body does not arrive.
func tooSlow(r matrix.Effect) *reply.Refusal {
	f := &reply.Refusal{
		Status: http.StatusRequestTimeout, Code: matrix.CodeUnknown, Message: "The body of the request did not arrive in time.", Outcome: reply.OutcomeSlow,
	}
	if r == matrix.Refresh {
		return f.Text() // clients take any JSON there for the end of the session
	}
	return f
}

// bodyTimeout bounds the arrival of a body that the gateway parses.
const bodyTimeout = 30 * time.Second

// leased holds the leases of one request.
type leased struct {
	keys    []admission.DeviceKey
	release []func()
	end     *time.Timer // deadline of the homeserver's response; nil: none
}

// lease acquires the lease of a device for an exchange, unless it has it. A session
// without a device needs none. An error is a [client.UnavailableError].
func (g *Gateway) lease(ctx context.Context, x *exchange, user, device string, c admission.Claim) error {
	key := admission.Device(user, device)
	if key.Device == "" || slices.Contains(x.leased.keys, key) {
		return nil
	}
	release, err := g.leases.Acquire(ctx, key, c)
	if err != nil {
		return &client.UnavailableError{Err: err}
	}
	x.leased.keys = append(x.leased.keys, key)
	x.leased.release = append(x.leased.release, release)
	return nil
}

var errLeaseExpired = errors.New("homeserver response exceeded the lease of the device")

// forward forwards a request. While it holds leases, the homeserver's response has a
// deadline.
func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, x *exchange) {
	if len(x.leased.keys) > 0 {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		x.leased.end = time.AfterFunc(g.cfg.timeouts.leased, func() { cancel(errLeaseExpired) })
		r = r.WithContext(ctx)
	}
	if x.match.Route.Poll {
		ctx, p := g.polls.Begin(r.Context())
		defer p.End()
		x.poll, r = p, r.WithContext(ctx)
	}
	g.proxy.ServeHTTP(w, r)
}

// releaseLeases releases the leases of an exchange.
func (x *exchange) releaseLeases() {
	if x.leased.end != nil {
		x.leased.end.Stop()
	}
	for _, f := range x.leased.release {
		f()
	}
	x.leased = leased{}
}

// readRequest reads the body of a request and puts it back. A compressed body is refused.
func (g *Gateway) readRequest(r *http.Request) ([]byte, *reply.Refusal) {
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, reply.BadRequest(matrix.CodeUnknown, "A compressed body cannot be read here.")
	}
	if r.Body == nil {
		return nil, nil
	}
	x := exchangeOf(r.Context())
	err := jsonbody.ErrTooLarge
	var data []byte
	if r.ContentLength <= jsonbody.MaxSize {
		admission.LimitBody(r, bodyTimeout)
		data, err = g.bodies.Read(r.Body, &x.body)
	}
	switch {
	case err == nil:
	case errors.Is(err, jsonbody.ErrTooLarge):
		return nil, &reply.Refusal{
			Status: http.StatusRequestEntityTooLarge, Code: matrix.CodeTooLarge, Message: "The body is too large.", Outcome: reply.OutcomeMalformed,
		}
	case errors.Is(err, jsonbody.ErrNoRoom):
		return nil, tooMany(x.route)
	case errors.Is(err, admission.ErrSlow):
		return nil, tooSlow(x.route)
	default:
		return nil, reply.BadRequest(matrix.CodeUnknown, "The body could not be read.")
	}
	jsonbody.SetRequest(r, data)
	return data, nil
}

// Drain answers 503 to long polls and to requests that wait for the service, now and
// from now on. Other requests are served. It may be called more than once.
func (g *Gateway) Drain() {
	g.polls.Drain(g.cfg.jitter)
	g.service.Waiting.Drain()
}

// waiterFor returns the waiter of an exchange. All waiting of one exchange has one
// deadline.
func (g *Gateway) waiterFor(x *exchange, known func() error) service.Waiter {
	if x.waitUntil.IsZero() {
		x.waitUntil = time.Now().Add(g.cfg.timeouts.wait)
	}
	return service.Waiter{Peer: g.limitKey(x.client), Place: &x.place, Known: known, Until: x.waitUntil}
}

// clientAddress returns the client's address, resolved through trusted proxies, and
// whether the peer is one of them.
func (g *Gateway) clientAddress(r *http.Request) (netip.Addr, bool) {
	o := clientaddr.Of(r, g.live().TrustedProxies)
	if o.Malformed != "" {
		g.metrics.MalformedFor.Inc()
		g.warnForwarded.Do(func() {
			g.cfg.Log.LogAttrs(r.Context(), slog.LevelWarn, "X-Forwarded-For not understood, clients have the proxy's address",
				slog.String("element", o.Malformed), slog.String("proxy", o.Addr.String()))
		})
	}
	return o.Addr, o.Trusted
}
