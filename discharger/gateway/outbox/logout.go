package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// maxTries bounds the tries of a logout that the homeserver answers with an
// unexpected status.
const maxTries = 20

// flushLogouts makes the pending logouts. It goes on after a failure, unless the
// service or the homeserver does not answer.
func (b *Outbox) flushLogouts(ctx context.Context) (failed error) {
	ids, err := b.Store.Logouts()
	for _, id := range ids {
		var status *upstream.StatusError
		if err := b.logOutDevice(ctx, id); errors.As(err, &status) || errors.Is(err, admission.ErrBusy) || errors.Is(err, homeserver.ErrUnknownKey) {
			failed = err
		} else if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(failed, err)
}

// logOutDevice makes a pending logout, if no other session has the device. It holds
// the device's lease during check and logout.
func (b *Outbox) logOutDevice(ctx context.Context, id caveat.SessionID) error {
	d, ok, err := b.Store.Logout(id)
	if err != nil || !ok {
		return err
	}
	token, err := b.cfg.Sealer.OpenUpstream(id, d.Box)
	if errors.Is(err, homeserver.ErrUnknownKey) {
		return err
	}
	if err != nil {
		b.cfg.Log.LogAttrs(ctx, slog.LevelError, "key of a homeserver token is missing, the device stays", slog.String("session", id.String()))
		return b.Store.Drop(id)
	}
	if !d.Named {
		if d, ok, err = b.identify(ctx, id, d, token); err != nil || !ok {
			return err
		}
	}
	if d.Device != "" {
		release, err := b.tryLease(d.User, d.Device)
		if err != nil {
			return err
		}
		defer release()
		if _, ok, err = b.Store.Logout(id); err != nil || !ok {
			return err // cancelled by a login on the device
		}
	}
	if ok, err = b.mayLogOut(ctx, id, &d, token); err != nil || !ok {
		return err
	}
	err = b.cfg.Homeserver.Logout(ctx, token, upstream.Origin{})
	b.cfg.ObserveLogout(err)
	var status *upstream.StatusError
	switch {
	case err == nil:
		b.gone.Put(id, struct{}{})
		return b.Store.Drop(id)
	case !errors.As(err, &status):
		return fmt.Errorf("log out at the homeserver: %w", err)
	}
	if d.Tries++; d.Tries < maxTries {
		if err := b.Store.updateLogout(id, d); err != nil {
			return err
		}
		return fmt.Errorf("log out at the homeserver: %w", err)
	}
	b.cfg.Log.LogAttrs(ctx, slog.LevelError, "upstream logout failed permanently, the device stays",
		slog.String("session", id.String()), slog.Any("error", err))
	return b.Store.Drop(id)
}

// identify requests user and device of a token from the homeserver, for an entry of an
// earlier version. It reports false if the token is not known any more.
func (b *Outbox) identify(ctx context.Context, id caveat.SessionID, d PendingLogout, token string) (PendingLogout, bool, error) {
	status, body, err := b.cfg.Homeserver.Get(ctx, upstream.PathWhoami, token, upstream.Origin{})
	if err != nil {
		return d, false, fmt.Errorf("get owner of token: %w", err)
	}
	code, _ := body.Text("errcode")
	user, _ := body.Text("user_id")
	switch {
	case upstream.LogoutDone(status, code):
		return d, false, b.Store.Drop(id)
	case status != http.StatusOK || user == "":
		return d, false, &upstream.StatusError{Status: status}
	}
	d.User, d.Named = user, true
	d.Device, _ = body.Text("device_id")
	return d, true, b.Store.updateLogout(id, d)
}

// mayLogOut reports whether a device is to be logged out: not if another session has
// it, and not if the session is live at the service, or ended softly. An entry that
// needs no logout is removed.
func (b *Outbox) mayLogOut(ctx context.Context, id caveat.SessionID, d *PendingLogout, token string) (bool, error) {
	if d.New {
		return b.mayAbandon(ctx, id, *d)
	}
	s, err := b.State(ctx, d.User, d.Device, id)
	switch {
	case err != nil:
		return false, fmt.Errorf("get sessions of device: %w", err)
	case s.Live:
		b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "session is live at the service, its device is not logged out", slog.String("session", id.String()))
		b.Ends.Remove(id)
		return false, b.Store.restore(id, *d, 0)
	case s.Others:
		return false, b.Store.Drop(id)
	case !d.Reap && !d.Left && s.End != nil && s.End.Soft:
		b.Ends.Put(id, *s.End)
		return false, b.Store.restore(id, *d, s.End.at)
	case !d.Reap && !d.Left && s.End == nil && !d.Hard: // of an earlier version, which did not record the kind of end
		return false, b.Store.restore(id, *d, 0)
	case d.Device == "", d.Unused:
		return true, nil
	case d.Reap:
		now, err := b.storeNow(ctx)
		if err != nil {
			return false, err
		}
		return b.unusedSince(ctx, id, d, token, now.Add(-b.forgetAfter()))
	case s.End != nil && b.cfg.Clock().Sub(time.UnixMilli(s.End.at)) > usedSlack:
		return b.unusedSince(ctx, id, d, token, time.UnixMilli(s.End.at).Add(usedSlack))
	}
	return true, nil
}

// usedSlack is how long after its end a session may be in use at the homeserver, since
// discharges expire later and clocks differ.
const usedSlack = 15 * time.Minute

// unusedSince reports whether the homeserver did not see a device in use since a time. A
// device in use has had a session that the service does not list any more, and it stays.
func (b *Outbox) unusedSince(ctx context.Context, id caveat.SessionID, d *PendingLogout, token string, since time.Time) (bool, error) {
	status, body, err := b.cfg.Homeserver.Get(ctx, upstream.PathDevices+"/"+url.PathEscape(d.Device), token, upstream.Origin{})
	if err != nil {
		return false, fmt.Errorf("get device: %w", err)
	}
	code, _ := body.Text("errcode")
	switch {
	case upstream.LogoutDone(status, code):
		return false, b.Store.Drop(id)
	case status == http.StatusNotFound, status == http.StatusForbidden: // no device, or no such route
		d.Unused = true
		return true, b.Store.updateLogout(id, *d)
	case status != http.StatusOK:
		return false, &upstream.StatusError{Status: status}
	}
	if seen := lastSeen(body, b.cfg.Clock()); seen.After(since) {
		return false, b.Store.restore(id, *d, seen.UnixMilli()) // until ForgetAfter has passed again
	}
	d.Unused = true
	return true, b.Store.updateLogout(id, *d)
}

// lastSeen returns when the homeserver last saw a device in use; zero: never. A time
// that is malformed or in the future counts as now.
func lastSeen(device jsonbody.Object, now time.Time) time.Time {
	value := device.Get("last_seen_ts")
	if value.Kind() == 'n' || value == nil {
		return time.Time{}
	}
	ms, err := strconv.ParseInt(string(value), 10, 64)
	if seen := time.UnixMilli(ms); err == nil && seen.Before(now) {
		return seen
	}
	return now
}

// storeNow returns the time of the service's store.
func (b *Outbox) storeNow(ctx context.Context) (time.Time, error) {
	m, err := b.cfg.Client.Marks(ctx, "")
	if err != nil {
		return time.Time{}, fmt.Errorf("get time of the service: %w", err)
	}
	return m.Now, nil
}

// tryLease takes the leases of a logout, or returns [admission.ErrBusy] if requests
// hold them or wait for them.
func (b *Outbox) tryLease(user, device string) (release func(), err error) {
	unnamed, ok := b.cfg.Leases.Try(admission.Device("", device))
	if !ok {
		return nil, admission.ErrBusy
	}
	named, ok := b.cfg.Leases.Try(admission.Device(user, device))
	if !ok {
		unnamed()
		return nil, admission.ErrBusy
	}
	return func() { named(); unnamed() }, nil
}

// LogOutNew logs out the device of a login that failed. The caller has the device's
// lease.
func (b *Outbox) LogOutNew(ctx context.Context, id caveat.SessionID, d PendingLogout, token string, who upstream.Origin) error {
	if ok, err := b.mayAbandon(ctx, id, d); err != nil || !ok {
		return err
	}
	if err := b.cfg.Homeserver.Logout(ctx, token, who); err != nil {
		return err
	}
	return b.Store.Drop(id)
}

// mayAbandon reports whether the device of a login that failed is to be logged out: not
// if the service lists another session with it, live or ended. Then the pending logout
// is removed.
func (b *Outbox) mayAbandon(ctx context.Context, id caveat.SessionID, d PendingLogout) (bool, error) {
	if d.Device == "" {
		return true, nil // the logout ends the token only
	}
	live, err := b.cfg.Client.Sessions(ctx, d.User)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(live, func(s wire.SessionInfo) bool { return s.Device == d.Device && s.ID != id }) {
		return false, b.Store.Drop(id)
	}
	ended, err := b.cfg.Client.EndedSessions(ctx, d.User)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(ended, func(s wire.EndedSession) bool { return s.Device == d.Device && s.ID != id }) {
		return false, b.Store.Drop(id)
	}
	return true, nil
}
