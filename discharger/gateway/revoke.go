package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/uia"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// endSessions ends the sessions whose tokens the homeserver has just revoked. Where the
// request is partial, the homeserver's list of devices decides; if it is unavailable,
// the next refresh or use of their tokens ends the sessions.
func (g *Gateway) endSessions(ctx context.Context, x *exchange, who upstream.Origin) {
	id := x.identity
	switch {
	case x.route == matrix.LogoutAll:
		g.outbox.Revoke(ctx, outbox.Job{Op: outbox.EndUser, User: id.User})
	case x.route == matrix.Deactivate:
		g.outbox.Revoke(ctx, outbox.Job{Op: outbox.EndUser, User: id.User, Every: true})
	case x.partial():
		if err := g.outbox.RevokeMissing(ctx, id, x.upstream, who); err != nil {
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "cannot compare sessions with the homeserver's devices", slog.Any("error", err))
		}
	case x.route == matrix.Password && x.uia.own.LogoutDevices != uia.No: // Absent means yes
		g.outbox.Revoke(ctx, outbox.Job{Op: outbox.EndUser, User: id.User, Session: id.Session})
	default:
		for _, device := range x.deletedDevices() {
			g.outbox.Revoke(ctx, outbox.Job{Op: outbox.EndDevice, User: id.User, Device: device})
		}
	}
}

// awaitState returns the state of a session, and waits while the service is unavailable.
func (g *Gateway) awaitState(ctx context.Context, user, device string, id caveat.SessionID) (outbox.State, error) {
	return service.Do(ctx, g.service, g.waiterFor(exchangeOf(ctx), nil), func(ctx context.Context) (outbox.State, error) {
		return g.outbox.State(ctx, user, device, id)
	})
}

// answerUnauthorized processes a 401 of the homeserver. If the token is unknown there,
// the session ends and cannot be refreshed. A request for a password, or a locked
// account, ends nothing.
func (g *Gateway) answerUnauthorized(resp *http.Response, x *exchange) error {
	body, err := jsonbody.ReadLenient(resp)
	if err != nil {
		return err
	}
	if body.Get("flows") != nil || body.Get("session") != nil || !body.Is("errcode", matrix.CodeUnknownToken) {
		return nil
	}
	ctx := resp.Request.Context()
	who := x.origin(resp.Request)
	v, err := g.homeserver.Known(ctx, x.upstream, who)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "cannot determine the state of a token at the homeserver", slog.Any("error", err))
		return refusalError{reply.Undecided(0)}
	}
	if v.Known {
		return nil
	}
	e, err := g.endUnknown(ctx, x, v)
	if soft := body.Get("soft_logout").Kind() == 't'; err == nil && e.Soft != soft {
		err = e.Refusal()
	}
	if err != nil {
		return refusalError{g.refusal(ctx, err)}
	}
	return nil
}

// endUnknown ends a session whose token the homeserver rejects, under the lease of its
// device.
func (g *Gateway) endUnknown(ctx context.Context, x *exchange, v upstream.Verdict) (outbox.End, error) {
	if err := g.lease(ctx, x, x.identity.User, x.identity.Device, admission.Claim{}); err != nil {
		return outbox.End{}, err
	}
	return g.outbox.EndUnknown(ctx, x.identity, v)
}

// uiaState holds the parameters of user-interactive authentication of an exchange.
type uiaState struct {
	session string      // the homeserver's name of it; empty: the first request
	own     uia.Params  // of this request
	before  *uia.Params // of earlier requests; nil: unknown
}

// usesUIA reports whether a route has user-interactive authentication and members that
// the gateway needs.
func usesUIA(r matrix.Effect) bool {
	return r == matrix.Register || r == matrix.AdminRegister || r == matrix.Password || r == matrix.DeleteDevices
}

// resumeUIA reads the member auth of a request and finds the parameters of earlier
// requests in the same session.
func (g *Gateway) resumeUIA(x *exchange, body jsonbody.Object) {
	auth, _ := g.parseBody(body.Get("auth")) // nil: not an object
	if x.uia.session, _ = auth.Text("session"); x.uia.session != "" {
		x.uia.before = g.uiaSessions(x).Get(uia.KeyOf(x.route, x.identity.User, x.uia.session), g.cfg.clock())
	}
}

// keepChallenge stores the parameters of a request that the homeserver answered with a
// challenge, under the session's name in it.
func (g *Gateway) keepChallenge(resp *http.Response, x *exchange) error {
	body, err := jsonbody.ReadLenient(resp)
	if err != nil {
		return err
	}
	if name, _ := body.Text("session"); name != "" && body.Get("flows") != nil {
		g.uiaSessions(x).Put(uia.KeyOf(x.route, x.identity.User, name), x.uia.own.Over(x.uia.before), g.cfg.clock())
	}
	return nil
}

// uiaSessions returns the store for an exchange. Registrations need no token, so they
// have a store of their own.
func (g *Gateway) uiaSessions(x *exchange) *uia.Sessions {
	if x.route.HandsOut() {
		return g.uiaRegistrations
	}
	return g.uiaUsers
}

// maxDeletes bounds the devices deleted by one request, each with a lease and a
// revocation.
const maxDeletes = 500

// prepareDevices parses a request that changes the password or deletes devices, and
// acquires the leases of the devices.
func (g *Gateway) prepareDevices(r *http.Request, x *exchange) *reply.Refusal {
	if x.route != matrix.DeleteDevice {
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
			return reply.BadBody(data) // the homeserver might parse it differently
		}
	}
	if !x.ours() {
		return nil
	}
	devices := x.deletedDevices()
	if len(devices) > maxDeletes {
		return reply.BadRequest(matrix.CodeTooLarge, "Too many devices in one request.")
	}
	for _, device := range devices {
		if err := g.lease(r.Context(), x, x.identity.User, device, admission.Claim{}); err != nil {
			return g.refusal(r.Context(), err)
		}
	}
	return nil
}

// deviceParams reads the members of a request that changes the password or deletes
// devices.
func deviceParams(body jsonbody.Object) (a uia.Params) {
	a.LogoutDevices = uia.ChoiceOf(body.Get("logout_devices"))
	if list := body.Get("devices"); list != nil {
		a.Devices = []string{}
		if json.Unmarshal(list, &a.Devices) != nil {
			a.Devices = []string{}
		}
	}
	return a
}

// deletedDevices returns the devices that a request deletes, sorted, from its own members and
// those of earlier requests.
func (x *exchange) deletedDevices() []string {
	var devices []string
	switch x.route {
	case matrix.DeleteDevice:
		devices = []string{x.match.ID("device")}
	case matrix.DeleteDevices:
		devices = slices.Clone(x.uia.own.Over(x.uia.before).Devices)
	}
	devices = slices.DeleteFunc(devices, func(d string) bool { return d == "" })
	slices.Sort(devices)
	return slices.Compact(devices)
}

// partial reports whether a request lacks the member that selects devices, or has another
// value than earlier requests of its session. Homeservers differ in how they treat that.
func (x *exchange) partial() bool {
	own, before := x.uia.own, x.uia.before
	switch x.route {
	case matrix.Password:
		return x.uia.session != "" && own.LogoutDevices == uia.Absent || before != nil && before.LogoutDevices != uia.Absent && before.LogoutDevices != own.LogoutDevices
	case matrix.DeleteDevices: // for an empty list Synapse deletes none, Dendrite all
		return len(own.Devices) == 0 || before != nil && before.Devices != nil && !slices.Equal(before.Devices, own.Devices)
	}
	return false
}
