package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/uia"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// ended has the service end the sessions whose tokens the homeserver has just ended.
func (g *Gateway) ended(ctx context.Context, x *exchange, who upstream.Origin) {
	id := x.identity
	switch x.route {
	case routeLogoutAll:
		g.outbox.Revoke(ctx, outbox.Job{Op: outbox.EndUser, User: id.User})
	case routeDeactivate:
		g.outbox.Revoke(ctx, outbox.Job{Op: outbox.EndUser, User: id.User, Every: true})
	case routePassword, routeDeleteDevice, routeDeleteDevices:
		g.endDevices(ctx, x, who)
	}
}

// endDevices has the service end the sessions of the devices that the homeserver
// has just deleted. Where the request is partial, the homeserver decides which these
// are; if it does not answer, the next refresh or use of their tokens shows it.
func (g *Gateway) endDevices(ctx context.Context, x *exchange, who upstream.Origin) {
	id := x.identity
	switch {
	case x.partial():
		if err := g.outbox.RevokeMissing(ctx, x.identity, x.upstream, who); err != nil {
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "sessions cannot be compared with the homeserver's devices", slog.Any("error", err))
		}
	case x.route != routePassword:
		for _, device := range x.deletes() {
			g.outbox.Revoke(ctx, outbox.Job{Op: outbox.EndDevice, User: id.User, Device: device})
		}
	case x.uia.own.LogoutDevices != uia.No: // the default is yes
		g.outbox.Revoke(ctx, outbox.Job{Op: outbox.EndUser, User: id.User, Session: id.Session})
	}
}

// awaitStanding asks the same, and waits while the service decides nothing.
func (g *Gateway) awaitStanding(ctx context.Context, user, device string, id caveat.SessionID) (outbox.State, error) {
	return service.Do(ctx, g.service, g.waiterFor(exchangeOf(ctx), nil), func(ctx context.Context) (outbox.State, error) {
		return g.outbox.State(ctx, user, device, id)
	})
}

// rejected looks at a 401 of the homeserver's. If the token is unknown there, the
// session is over, and must not be refreshed any more. A question for a password,
// and a locked account, is no end.
func (g *Gateway) rejected(resp *http.Response, x *exchange) error {
	body, err := jsonbody.ReadLenient(resp)
	if err != nil {
		return err
	}
	if body.Get("flows") != nil || body.Get("session") != nil {
		return nil
	}
	if code, _ := body.Text("errcode"); code != matrix.CodeUnknownToken {
		return nil
	}
	ctx := resp.Request.Context()
	who := x.origin(resp.Request)
	v, err := g.homeserver.Known(ctx, x.upstream, who)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "state of a token at the homeserver is unknown", slog.Any("error", err))
		return failed{reply.Undecided(0)}
	}
	if v.Known {
		return nil
	}
	e, err := g.lostUpstream(ctx, x, v)
	if err != nil {
		return failed{g.refusal(ctx, err)}
	}
	if soft := body.Get("soft_logout").Kind() == 't'; e.Soft != soft {
		return failed{g.refusal(ctx, e.Refusal())}
	}
	return nil
}

// lostUpstream ends a session whose token the homeserver does not know, under the
// lease of its device.
func (g *Gateway) lostUpstream(ctx context.Context, x *exchange, v upstream.Verdict) (outbox.End, error) {
	if err := g.lease(ctx, x, x.identity.User, x.identity.Device); err != nil {
		return outbox.End{}, &client.UnavailableError{Err: err}
	}
	return g.outbox.EndUnknown(ctx, x.identity, v)
}

// User-interactive authentication (specification, section 4.8) is one mechanism for
// every endpoint that uses it. The homeserver answers a request with 401, flows and
// the name of a session; the client repeats the request with a member auth that has
// this name. The repetition may have nothing but auth: then Synapse takes its other
// members from the request before, and Dendrite takes none. So the gateway remembers,
// by the name of the session, the members that it needs itself, and after the last
// request it does not rely on them alone: see [Gateway.endDevices].
//
// The memory is of this process and bounded in bytes and time. Without it, after a
// restart or at another gateway, a registration has mode held: the client gets a
// token that works, without a refresh token.

// uiaState is the part of an exchange that belongs to a session of user-interactive
// authentication.
type uiaState struct {
	session string      // the homeserver's name for it; empty: the request begins one
	own     uia.Params  // of this request
	before  *uia.Params // of the requests before it; nil: not remembered
}

// usesUIA reports whether an endpoint has user-interactive authentication and
// members that the gateway needs.
func usesUIA(r route) bool {
	return r == routeRegister || r == routeAdminRegister || r == routePassword || r == routeDeleteDevices
}

const (
	memberAuth          = "auth"
	memberSession       = "session"
	memberFlows         = "flows"
	memberDevices       = "devices"
	memberLogoutDevices = "logout_devices"
)

// resumeUIA reads the member auth of a request, and finds the parameters of the
// requests before it in the same session.
func (g *Gateway) resumeUIA(x *exchange, body jsonbody.Object) {
	auth, err := g.parseBody(body.Get(memberAuth))
	if err != nil {
		return
	}
	if x.uia.session, _ = auth.Text(memberSession); x.uia.session != "" {
		x.uia.before = g.uiaSessions(x).Get(uia.KeyOf(x.route, x.identity.User, x.uia.session), g.cfg.clock())
	}
}

// challenged reads a 401 of the homeserver's on a route with user-interactive
// authentication. If it names a session, the request's parameters are kept under
// that name.
func (g *Gateway) challenged(resp *http.Response, x *exchange) error {
	body, err := jsonbody.ReadLenient(resp)
	if err != nil {
		return err
	}
	name, _ := body.Text(memberSession)
	if name == "" || body.Get(memberFlows) == nil {
		return nil
	}
	g.uiaSessions(x).Put(uia.KeyOf(x.route, x.identity.User, name), x.uia.own.Over(x.uia.before), g.cfg.clock())
	return nil
}

// uiaSessions returns the memory for an exchange. Registrations, which need no
// token, have one of their own.
func (g *Gateway) uiaSessions(x *exchange) *uia.Sessions {
	if x.route.HandsOut() {
		return g.uiaRegistrations
	}
	return g.uiaUsers
}

// maxDeletes bounds the devices that one request deletes: each has a lease, and an
// order to the service.
const maxDeletes = 500

// prepareDevices reads a request that deletes devices, of one kind or the other,
// and takes their leases.
func (g *Gateway) prepareDevices(r *http.Request, x *exchange) *reply.Refusal {
	if x.route != routeDeleteDevice {
		r.Header.Del("Accept-Encoding")
		data, f := g.readRequest(r)
		if f != nil || !x.ours() {
			return f
		}
		body, err := g.parseBody(data)
		if err == nil {
			g.resumeUIA(x, body)
			x.uia.own = deviceParams(body)
		} else if json.Valid(data) {
			return reply.BadBody(data) // the homeserver might read a member that is not read here
		}
	}
	if !x.ours() {
		return nil
	}
	devices := x.deletes()
	if len(devices) > maxDeletes {
		return reply.BadRequest(matrix.CodeTooLarge, "Too many devices in one request.")
	}
	for _, device := range devices {
		if err := g.lease(r.Context(), x, x.identity.User, device); err != nil {
			return g.refusal(r.Context(), &client.UnavailableError{Err: err})
		}
	}
	return nil
}

// deviceParams reads a request that changes the password or deletes devices.
func deviceParams(body jsonbody.Object) (a uia.Params) {
	a.LogoutDevices = uia.ChoiceOf(body.Get(memberLogoutDevices))
	if list := body.Get(memberDevices); list != nil {
		a.Devices = []string{}
		if json.Unmarshal(list, &a.Devices) != nil {
			a.Devices = []string{}
		}
	}
	return a
}

// deletes returns the devices that a request deletes, sorted, as far as it or those
// before it name them.
func (x *exchange) deletes() []string {
	var devices []string
	switch x.route {
	case routeDeleteDevice:
		devices = []string{x.match.ID("device")}
	case routeDeleteDevices:
		devices = slices.Clone(x.uia.own.Over(x.uia.before).Devices)
	}
	devices = slices.DeleteFunc(devices, func(d string) bool { return d == "" })
	slices.Sort(devices)
	return slices.Compact(devices)
}

// partial reports whether a request has no member that decides which devices it is
// about, or another value than those before it in its session. Homeservers differ in
// what they do then.
func (x *exchange) partial() bool {
	own, before := x.uia.own, x.uia.before
	switch x.route {
	case routePassword:
		return x.uia.session != "" && own.LogoutDevices == uia.Absent || before != nil && before.LogoutDevices != uia.Absent && before.LogoutDevices != own.LogoutDevices
	case routeDeleteDevices: // of an empty list Synapse deletes none, and Dendrite all
		return len(own.Devices) == 0 || before != nil && before.Devices != nil && !slices.Equal(before.Devices, own.Devices)
	}
	return false
}
