package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
)

// RevokeMissing revokes the sessions of a user whose devices are not at the homeserver
// any more. The sessions are listed before the devices, so that a session that begins
// in between is not revoked.
func (b *Outbox) RevokeMissing(ctx context.Context, own homeserver.Identity, token string, who upstream.Origin) error {
	user := own.User
	live, away := b.cfg.Client.Sessions(ctx, user)
	sessions := make(map[caveat.SessionID]string, len(live))
	for _, s := range live {
		sessions[s.ID] = s.Device
	}
	kept, err := b.Store.sessions(user)
	if err != nil {
		return err
	}
	for id, s := range kept {
		if away != nil && s.Ended == 0 && s.Missing == 0 {
			sessions[id] = s.Device
		}
	}
	missing, err := b.missing(ctx, own, token, who, sessions, kept)
	for _, id := range missing {
		j := Job{Op: EndSession, User: user, Session: id, At: b.cfg.Clock().UnixMilli()}
		if away == nil {
			b.Revoke(ctx, j)
			continue
		}
		b.EndLocally(ctx, j)
		b.Keep(ctx, j)
	}
	return err
}

// missing returns the sessions whose devices are not at the homeserver any more. If
// the homeserver does not list devices, as after the session's own device was deleted,
// the tokens of this gateway's sessions are tried.
func (b *Outbox) missing(ctx context.Context, own homeserver.Identity, token string, who upstream.Origin, sessions map[caveat.SessionID]string, kept map[caveat.SessionID]Session) (missing []caveat.SessionID, err error) {
	devices, err := b.devicesUpstream(ctx, own, token, who)
	if err == nil {
		for id, device := range sessions {
			if device != "" && !devices[device] {
				missing = append(missing, id)
			}
		}
		return missing, nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeouts.Homeserver)
	defer cancel()
	for id := range sessions {
		s, ok := kept[id]
		if !ok {
			continue // of another gateway
		}
		token, err := b.cfg.Sealer.OpenUpstream(id, s.Box)
		if err != nil {
			continue
		}
		v, err := b.cfg.Homeserver.Known(ctx, token, upstream.Origin{})
		if err != nil {
			return missing, err
		}
		if !v.Known {
			missing = append(missing, id)
		}
	}
	return missing, nil
}

// devicesUpstream returns the user's devices at the homeserver. A list without the
// session's own device is an error.
func (b *Outbox) devicesUpstream(ctx context.Context, owner homeserver.Identity, token string, who upstream.Origin) (map[string]bool, error) {
	status, body, err := b.cfg.Homeserver.Get(ctx, upstream.PathDevices, token, who)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, &upstream.StatusError{Status: status}
	}
	var list []struct {
		ID string `json:"device_id"`
	}
	if v := body.Get("devices"); v.Kind() != '[' {
		return nil, errors.New("list of devices is missing")
	} else if err := json.Unmarshal(v, &list); err != nil {
		return nil, fmt.Errorf("list of devices: %w", err)
	}
	devices := make(map[string]bool, len(list))
	for _, d := range list {
		devices[d.ID] = true
	}
	if own := owner.Device; own != "" && !devices[own] {
		return nil, errors.New("list of devices is without the session's own")
	}
	return devices, nil
}

// Begin records a session that has begun. It ends the sessions before it on the
// device, and cancels pending logouts, which would delete the device.
func (b *Outbox) Begin(ctx context.Context, session caveat.SessionID, user, device, token string) {
	before, err := b.Store.Begin(session, Session{
		User: user, Device: device, Box: b.cfg.Sealer.SealUpstream(session, token), Minted: b.cfg.Clock().UnixMilli(),
	})
	if err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record session, its device will not be logged out",
			slog.Any("error", err))
	}
	if len(before) > 0 {
		b.learnEnds(ctx, user, before)
	}
}

// learnEnds requests from the service how sessions ended, so that this gateway refuses
// them at once and like every other. If the service does not answer, the ends arrive
// by the feed.
func (b *Outbox) learnEnds(ctx context.Context, user string, sessions []caveat.SessionID) {
	ended, err := b.cfg.Client.EndedSessions(ctx, user)
	if err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "ended sessions cannot be listed", slog.Any("error", err))
		return
	}
	for _, s := range ended {
		if slices.Contains(sessions, s.ID) {
			e := fromRecord(s)
			e.Settled = true // the device is in use again, or not at the homeserver any more
			b.Ends.Put(s.ID, e)
			b.cfg.OnEnd(s.ID)
		}
	}
}
