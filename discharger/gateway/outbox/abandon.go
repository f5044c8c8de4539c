package outbox

import (
	"context"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// LogOutNew logs out the device of a login that failed. The caller has the device's
// lease.
func (b *Outbox) LogOutNew(ctx context.Context, id caveat.SessionID, d PendingLogout, token string, who upstream.Origin) error {
	if ok, err := b.mayAbandon(ctx, id, d); err != nil || !ok {
		return err
	}
	if err := b.homeserver.Logout(ctx, token, who); err != nil {
		return err
	}
	return b.Store.LogoutDone(id)
}

// mayAbandon reports whether the device of a login that failed is to be logged out.
// If not, the pending logout is removed.
func (b *Outbox) mayAbandon(ctx context.Context, id caveat.SessionID, d PendingLogout) (bool, error) {
	if d.Device == "" {
		return true, nil // the logout ends the token only
	}
	had, err := b.hadSession(ctx, d.User, d.Device, id)
	if err != nil || !had {
		return err == nil, err
	}
	return false, b.Store.LogoutDone(id)
}

// hadSession reports whether the service lists another session, live or ended, with a
// device.
func (b *Outbox) hadSession(ctx context.Context, user, device string, except caveat.SessionID) (bool, error) {
	live, err := b.client.Sessions(ctx, user)
	if err != nil {
		return false, err
	}
	for _, s := range live {
		if s.Device == device && s.ID != except {
			return true, nil
		}
	}
	ended, err := b.client.EndedSessions(ctx, user)
	if err != nil {
		return false, err
	}
	for _, s := range ended {
		if s.Device == device && s.ID != except {
			return true, nil
		}
	}
	return false, nil
}
