package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/discharger/discharger/discharger/caveat"
)

// ended has the service end the sessions whose tokens the homeserver has just ended.
func (g *Gateway) ended(ctx context.Context, x *exchange) {
	id := x.identity
	switch x.route {
	case routeLogoutAll:
		g.end(ctx, order{Op: endUser, User: id.User})
	case routeDeactivate:
		g.end(ctx, order{Op: endUser, User: id.User, Every: true})
	case routePassword:
		if logsOutDevices(x.body) {
			g.end(ctx, order{Op: endUser, User: id.User, Session: id.Session})
		}
	case routeDeleteDevice, routeDeleteDevices:
		for _, device := range x.deletes() {
			g.end(ctx, order{Op: endDevice, User: id.User, Device: device})
		}
	}
}

// logsOutDevices reads the body of a change of password. The default is yes.
func logsOutDevices(body []byte) bool {
	o, err := parseObject(body)
	return err != nil || o.get("logout_devices").Kind() != 'f'
}

// deletes returns the devices that a request deletes, in order.
func (x *exchange) deletes() []string {
	var devices []string
	switch x.route {
	case routeDeleteDevice:
		devices = []string{deviceInPath(x.path)}
	case routeDeleteDevices:
		devices = devicesIn(x.body)
	}
	devices = slices.DeleteFunc(devices, func(d string) bool { return d == "" })
	slices.Sort(devices)
	return slices.Compact(devices)
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

// begun notes a session that has just begun. A logout of its device that was still
// to come is cancelled, since it would delete the device, and the sessions before
// it are over.
func (g *Gateway) begun(ctx context.Context, session caveat.SessionID, in loggedIn) {
	before, err := g.vault.begin(session, vaultSession{
		User: in.user, Device: in.device, Box: g.sealer.sealUpstream(session, in.token), Minted: g.cfg.Clock().UnixMilli(),
	})
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "session cannot be written down and will not be logged out at the homeserver when it is over",
			slog.Any("error", err))
	}
	if len(before) > 0 {
		g.noteReplaced(ctx, in.user, before)
	}
}

// noteReplaced asks the service how sessions ended that were on a device before a
// login, so that they are refused at once. If it does not answer, its feed will
// say.
func (g *Gateway) noteReplaced(ctx context.Context, user string, before []caveat.SessionID) {
	ended, err := g.once.EndedSessions(ctx, user)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "ended sessions cannot be listed", slog.Any("error", err))
		return
	}
	for _, s := range ended {
		if slices.Contains(before, s.ID) {
			e := endingIn(s)
			e.settled = true // the device is in use again
			g.dead.put(s.ID, e)
			g.held.drop(s.ID)
			g.opened.remove(s.ID)
		}
	}
}
