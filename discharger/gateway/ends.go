package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
)

// ended has the service end the sessions whose tokens the homeserver has just ended.
func (g *Gateway) ended(ctx context.Context, x *exchange, who forWhom) {
	id := x.identity
	switch x.route {
	case routeLogoutAll:
		g.end(ctx, order{Op: endUser, User: id.User})
	case routeDeactivate:
		g.end(ctx, order{Op: endUser, User: id.User, Every: true})
	case routePassword, routeDeleteDevice, routeDeleteDevices:
		g.endDevices(ctx, x, who)
	}
}

// endDevices has the service end the sessions of the devices that the homeserver
// has just deleted. Where the request is partial, the homeserver decides which these
// are; if it does not answer, the next refresh or use of their tokens shows it.
func (g *Gateway) endDevices(ctx context.Context, x *exchange, who forWhom) {
	id := x.identity
	switch {
	case x.partial():
		if err := g.endMissing(ctx, x, who); err != nil {
			g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "sessions cannot be compared with the homeserver's devices", slog.Any("error", err))
		}
	case x.route != routePassword:
		for _, device := range x.deletes() {
			g.end(ctx, order{Op: endDevice, User: id.User, Device: device})
		}
	case x.uia.own.logout != no: // the default is yes
		g.end(ctx, order{Op: endUser, User: id.User, Session: id.Session})
	}
}

const pathDevices = clientPrefix + "v3/devices"

// endMissing has the service end the sessions of a user whose devices the
// homeserver has no more. The sessions are listed first, so that none is ended
// which began in the meantime.
func (g *Gateway) endMissing(ctx context.Context, x *exchange, who forWhom) error {
	user := x.identity.User
	sessions, away := g.devicesAtService(ctx, user)
	kept, err := g.vault.sessionsOf(user)
	if err != nil {
		return err
	}
	for id, s := range kept {
		if away != nil && s.Ended == 0 && s.Missing == 0 {
			sessions[id] = s.Device
		}
	}
	missing, err := g.missing(ctx, x, who, sessions, kept)
	for _, id := range missing {
		o := order{Op: endSession, User: user, Session: id, At: g.cfg.Clock().UnixMilli()}
		if away == nil {
			g.end(ctx, o)
			continue
		}
		g.endHere(ctx, o)
		g.keepOrder(ctx, o)
	}
	return err
}

// missing returns the sessions whose devices are not at the homeserver any more. If it
// lists none, as after the session's own device was deleted, the tokens of this
// gateway's sessions are tried.
func (g *Gateway) missing(ctx context.Context, x *exchange, who forWhom, sessions map[caveat.SessionID]string, kept map[caveat.SessionID]vaultSession) (missing []caveat.SessionID, err error) {
	devices, err := g.devicesUpstream(ctx, x, who)
	if err == nil {
		for id, device := range sessions {
			if device != "" && !devices[device] {
				missing = append(missing, id)
			}
		}
		return missing, nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.patience.upstream)
	defer cancel()
	for id := range sessions {
		s, ok := kept[id]
		if !ok {
			continue // of another gateway
		}
		token, err := g.sealer.OpenUpstream(id, s.Box)
		if err != nil {
			continue
		}
		v, err := g.knownUpstream(ctx, token, forWhom{})
		if err != nil {
			return missing, err
		}
		if !v.known {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// devicesAtService lists the devices of a user's live sessions. The error is for
// the caller to know that the service is away.
func (g *Gateway) devicesAtService(ctx context.Context, user string) (map[caveat.SessionID]string, error) {
	sessions := make(map[caveat.SessionID]string)
	live, err := g.once.Sessions(ctx, user)
	for _, s := range live {
		sessions[s.ID] = s.Device
	}
	return sessions, err
}

// devicesUpstream requests the homeserver's list of the user's devices. A list without
// the session's own device is an error.
func (g *Gateway) devicesUpstream(ctx context.Context, x *exchange, who forWhom) (map[string]bool, error) {
	status, body, err := g.ask(ctx, pathDevices, x.upstream, who)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, &statusError{status}
	}
	var list []struct {
		ID string `json:"device_id"`
	}
	if v := body.get(memberDevices); v.Kind() != '[' {
		return nil, errors.New("list of devices is missing")
	} else if err := json.Unmarshal(v, &list); err != nil {
		return nil, fmt.Errorf("list of devices: %w", err)
	}
	devices := make(map[string]bool, len(list))
	for _, d := range list {
		devices[d.ID] = true
	}
	if own := x.identity.Device; own != "" && !devices[own] {
		return nil, errors.New("list of devices is without the session's own")
	}
	return devices, nil
}

// begun notes a session that has just begun. A logout of its device that was still
// to come is cancelled, since it would delete the device, and the sessions before
// it are over.
func (g *Gateway) begun(ctx context.Context, session caveat.SessionID, in loggedIn) {
	before, err := g.vault.begin(session, vaultSession{
		User: in.user, Device: in.device, Box: g.sealer.SealUpstream(session, in.token), Minted: g.cfg.Clock().UnixMilli(),
	})
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "session cannot be written down and will not be logged out at the homeserver when it is over",
			slog.Any("error", err))
	}
	if len(before) > 0 {
		g.learnEnds(ctx, in.user, before)
	}
}

// learnEnds lists at the service how sessions ended: those that were on a device before a
// login, and those that an order ended, of which some were over already. So they are
// refused at once and as everywhere else. If the service does not answer, its feed
// will.
func (g *Gateway) learnEnds(ctx context.Context, user string, sessions []caveat.SessionID) {
	ended, err := g.once.EndedSessions(ctx, user)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "ended sessions cannot be listed", slog.Any("error", err))
		return
	}
	for _, s := range ended {
		if slices.Contains(sessions, s.ID) {
			e := endingIn(s)
			e.settled = true // the device is in use again, or not at the homeserver any more
			g.dead.put(s.ID, e)
			g.held.drop(s.ID)
			g.opened.remove(s.ID)
		}
	}
}
