package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
)

// order is an end of sessions that the service is to be told of.
type order struct {
	Op      orderOp          `json:"op"`
	User    string           `json:"user"`
	Device  string           `json:"device,omitempty"`
	Session caveat.SessionID `json:"session"`      // the one that ends; of the others, the one to leave alone
	At      int64            `json:"at,omitempty"` // when the homeserver ended them, Unix ms; 0: it is not known
	// Known are sessions of this gateway's that are meant, whatever the service
	// says of when they began.
	Known []caveat.SessionID `json:"known,omitempty"`
}

type orderOp string

const (
	endSession orderOp = "session"
	endDevice  orderOp = "device"
	endUser    orderOp = "user"
	endOlder   orderOp = "older" // what was on the device of a session before it
)

// ended tells the service of what the homeserver has just ended.
func (g *Gateway) ended(ctx context.Context, x *exchange) {
	id := x.identity
	switch x.route {
	case routeLogout:
		g.end(ctx, order{Op: endSession, User: id.User, Session: id.Session})
	case routeLogoutAll, routeDeactivate:
		g.end(ctx, order{Op: endUser, User: id.User})
	case routePassword:
		if logsOutDevices(x.body) {
			g.end(ctx, order{Op: endUser, User: id.User, Session: id.Session})
		}
	case routeDeleteDevice:
		if device := deviceInPath(x.path); device != "" {
			g.end(ctx, order{Op: endDevice, User: id.User, Device: device})
		}
	case routeDeleteDevices:
		for _, device := range devicesIn(x.body) {
			g.end(ctx, order{Op: endDevice, User: id.User, Device: device})
		}
	}
}

// logsOutDevices reads the body of a change of password. The default is yes.
func logsOutDevices(body []byte) bool {
	o, err := parseObject(body)
	return err != nil || o.get("logout_devices").Kind() != 'f'
}

func deviceInPath(path string) string {
	device, err := url.PathUnescape(path[strings.LastIndexByte(path, '/')+1:])
	if err != nil {
		return ""
	}
	return device
}

func devicesIn(body []byte) []string {
	var in struct {
		Devices []string `json:"devices"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil
	}
	return in.Devices
}

// end carries out an order: here at once, and at the service as soon as it can
// be reached. The homeserver has ended the sessions already.
func (g *Gateway) end(ctx context.Context, o order) {
	o.At = g.cfg.Clock().UnixMilli()
	if gone := g.endHere(ctx, o); o.Op != endSession {
		o.Known = gone
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.patience.order)
	defer cancel()
	err := g.tell(ctx, o)
	if err == nil {
		return
	}
	g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the service could not be told of an end of sessions yet", slog.Any("error", err))
	if err := g.vault.putOrder(o); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot keep an order for later", slog.Any("error", err))
		return
	}
	g.wake()
}

// endHere forgets the sessions that an order is about, if it says which they
// are, and gives them.
func (g *Gateway) endHere(ctx context.Context, o order) []caveat.SessionID {
	if o.Op == endOlder {
		return nil
	}
	gone, err := g.vault.forget(o)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot forget sessions", slog.Any("error", err))
	}
	if o.Op == endSession {
		gone = append(gone, o.Session)
	}
	for _, id := range gone {
		g.dead.put(id, false)
		g.held.drop(id)
		g.opened.remove(id)
	}
	return gone
}

// tell gives an order to the service. It may be told twice.
func (g *Gateway) tell(ctx context.Context, o order) (err error) {
	switch o.Op {
	case endSession:
		err = g.once.RevokeSession(ctx, o.User, o.Session)
	case endDevice:
		err = g.once.RevokeDevice(ctx, o.User, o.Device, o.Session)
	case endUser:
		err = g.once.RevokeUser(ctx, o.User, o.Session)
	case endOlder:
		err = g.tellOlder(ctx, o)
	}
	g.metrics.orders.WithLabelValues(resultOf(err)).Inc()
	return err
}

// rejected looks at a 401 of the homeserver's. If it says that the token is
// unknown there, the session is over, and must not be refreshed any more. What
// asks for a password, and what says that the account is locked, is no end.
func (g *Gateway) rejected(resp *http.Response, x *exchange) error {
	if enc := strings.ToLower(resp.Header.Get("Content-Encoding")); enc != "" && enc != "gzip" && enc != "identity" {
		return nil // it cannot be read, so it says nothing
	}
	data, err := readResponse(resp)
	if err != nil {
		return err
	}
	body, err := parseObject(data)
	if err != nil || body.get("flows") != nil || body.get("session") != nil {
		return nil
	}
	if code, _ := body.text("errcode"); code != codeUnknownToken {
		return nil
	}
	ctx := resp.Request.Context()
	known, soft, err := g.knownUpstream(ctx, x.upstream)
	if err != nil || known {
		return nil
	}
	if soft {
		g.dead.put(x.identity.Session, true)
		return nil
	}
	o := order{Op: endSession, User: x.identity.User, Session: x.identity.Session}
	g.endHere(ctx, o)
	g.later(func() { g.end(context.WithoutCancel(ctx), o) })
	return nil
}

// knownUpstream asks the homeserver whether it knows its own token. A single 401
// is not believed: the homeserver passes on what others answer it, identity
// servers for instance, and a session is not to end by that.
func (g *Gateway) knownUpstream(ctx context.Context, token string) (known, soft bool, err error) {
	status, body, err := g.whoami(ctx, token)
	if err != nil {
		return false, false, err
	}
	code, _ := body.text("errcode")
	switch {
	case status == http.StatusUnauthorized && code == codeUnknownToken:
		return false, body.get("soft_logout").Kind() == 't', nil
	case status == http.StatusOK, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return true, false, nil
	}
	return false, false, errUndecided
}

// begun notes a session that has just begun. If it is on a device that had one
// before, that is over: the homeserver has ended its token.
func (g *Gateway) begun(ctx context.Context, x *exchange, session caveat.SessionID, in loggedIn) {
	err := g.vault.add(session, vaultSession{
		User: in.user, Device: in.device, Box: g.sealer.sealUpstream(session, in.token), Minted: g.cfg.Clock().UnixMilli(),
	})
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot note a session: it will not be logged out at the homeserver when it is over",
			slog.Any("error", err))
	}
	if x.login.device != "" && x.login.device == in.device {
		g.end(ctx, order{Op: endOlder, User: in.user, Device: in.device, Session: session})
	}
}

// overAtService takes note that the service has ended a session for good. The
// homeserver is told, so that the device does not go on receiving keys; but not
// if the client is to keep its own and come back.
func (g *Gateway) overAtService(ctx context.Context, id homeserver.Identity, soft bool) {
	if _, known := g.dead.get(id.Session); known {
		return
	}
	g.dead.put(id.Session, soft)
	g.opened.remove(id.Session)
	if soft || id.Payload == "" {
		return
	}
	if err := g.vault.condemn(id.Session, []byte(id.Payload)); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot note that a session is over", slog.Any("error", err))
		return
	}
	g.wake()
}
