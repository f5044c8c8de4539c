package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
)

// maxTries is how often a logout is tried that the homeserver answers, but not
// as it should.
const maxTries = 20

// logOutPending logs out at the homeserver the devices of sessions that are over.
// One that fails is not in the way of others, unless the service or the
// homeserver cannot be reached at all.
func (g *Gateway) logOutPending(ctx context.Context) (failed error) {
	for id := (caveat.SessionID{}); ctx.Err() == nil; {
		next, ok, err := g.vault.nextCondemned(id)
		if err != nil || !ok {
			return errors.Join(failed, err)
		}
		id = next
		var status *statusError
		if err := g.logOutDevice(ctx, id); errors.As(err, &status) || errors.Is(err, errLeased) || errors.Is(err, homeserver.ErrUnknownKey) {
			failed = err
		} else if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// logOutDevice logs out one device, if its session is still to be and no other
// session has the device. The device's lease is held over check and logout.
func (g *Gateway) logOutDevice(ctx context.Context, id caveat.SessionID) error {
	d, ok, err := g.vault.condemned(id)
	if err != nil || !ok {
		return err
	}
	token, err := g.sealer.OpenUpstream(id, d.Box)
	if errors.Is(err, homeserver.ErrUnknownKey) {
		return err
	}
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "key of a homeserver's token is gone, its device stays", slog.String("session", id.String()))
		return g.vault.paid(id)
	}
	if !d.Named {
		if d, ok, err = g.nameDebt(ctx, id, d, token); err != nil || !ok {
			return err
		}
	}
	if d.Device != "" {
		release, err := g.tryLogout(d.User, d.Device)
		if err != nil {
			return err
		}
		defer release()
		if _, ok, err = g.vault.condemned(id); err != nil || !ok {
			return err // a login on the device cancelled it
		}
	}
	if ok, err = g.mayLogOut(ctx, id, &d, token); err != nil || !ok {
		return err
	}
	err = g.logoutUpstream(ctx, token, forWhom{})
	g.metrics.reaped.WithLabelValues(resultOf(err)).Inc()
	var status *statusError
	switch {
	case err == nil:
		g.gone.put(id, struct{}{})
		return g.vault.paid(id)
	case !errors.As(err, &status):
		return fmt.Errorf("log out at the homeserver: %w", err)
	}
	if d.Tries++; d.Tries < maxTries {
		if err := g.vault.owe(id, d); err != nil {
			return err
		}
		return fmt.Errorf("log out at the homeserver: %w", err)
	}
	g.cfg.Log.LogAttrs(ctx, slog.LevelError, "homeserver does not log a device out, it stays",
		slog.String("session", id.String()), slog.Any("error", err))
	return g.vault.paid(id)
}

// nameDebt asks the homeserver whose a token is that an earlier version wrote
// down without. It reports false if the token is not known any more.
func (g *Gateway) nameDebt(ctx context.Context, id caveat.SessionID, d vaultDebt, token string) (vaultDebt, bool, error) {
	status, body, err := g.whoami(ctx, token, forWhom{})
	if err != nil {
		return d, false, fmt.Errorf("ask the homeserver whose a token is: %w", err)
	}
	code, _ := body.text("errcode")
	user, _ := body.text(memberUser)
	switch {
	case settlesLogout(status, code):
		return d, false, g.vault.paid(id)
	case status != http.StatusOK || user == "":
		return d, false, &statusError{status}
	}
	d.User, d.Named = user, true
	d.Device, _ = body.text(memberDevice)
	return d, true, g.vault.owe(id, d)
}

// mayLogOut asks the service whether a device is to be logged out: not if another
// session has it, and not if the session lives after all, or ended softly. An
// entry that needs no logout is taken off the list.
func (g *Gateway) mayLogOut(ctx context.Context, id caveat.SessionID, d *vaultDebt, token string) (bool, error) {
	if d.New {
		return g.mayAbandon(ctx, id, *d)
	}
	s, err := g.standing(ctx, d.User, d.Device, id)
	switch {
	case err != nil:
		return false, fmt.Errorf("ask the service about a device: %w", err)
	case s.live:
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "session is live at the service, its device is not logged out", slog.String("session", id.String()))
		g.dead.remove(id)
		return false, g.vault.restore(id, *d, 0)
	case s.others:
		return false, g.vault.paid(id)
	case !d.Reap && !d.Left && s.end != nil && s.end.soft:
		g.dead.put(id, *s.end)
		return false, g.vault.restore(id, *d, s.end.at)
	case !d.Reap && !d.Left && s.end == nil && !d.Hard: // of an earlier version, which did not write down how it ended
		return false, g.vault.restore(id, *d, 0)
	case d.Device == "", d.Unused:
		return true, nil
	case d.Reap:
		now, err := g.storeNow(ctx)
		if err != nil {
			return false, err
		}
		return g.unusedSince(ctx, id, d, token, now.Add(-g.live().ForgetAfter))
	case s.end != nil && g.cfg.Clock().Sub(time.UnixMilli(s.end.at)) > usedSlack:
		return g.unusedSince(ctx, id, d, token, time.UnixMilli(s.end.at).Add(usedSlack))
	}
	return true, nil
}

// usedSlack is how long after its end a session may be seen in use at the
// homeserver: discharges live on for a while, and clocks differ.
const usedSlack = 15 * time.Minute

// unusedSince asks the homeserver whether a device was used since a time: another
// session may have been on it that the service does not list any more, and the
// device stays for that.
func (g *Gateway) unusedSince(ctx context.Context, id caveat.SessionID, d *vaultDebt, token string, since time.Time) (bool, error) {
	status, body, err := g.ask(ctx, clientPrefix+"v3/devices/"+url.PathEscape(d.Device), token, forWhom{})
	if err != nil {
		return false, fmt.Errorf("ask the homeserver about a device: %w", err)
	}
	code, _ := body.text("errcode")
	switch {
	case settlesLogout(status, code):
		return false, g.vault.paid(id)
	case status == http.StatusNotFound, status == http.StatusForbidden: // no device, or a homeserver that does not say
		d.Unused = true
		return true, g.vault.owe(id, *d)
	case status != http.StatusOK:
		return false, &statusError{status}
	}
	if seen := lastSeen(body, g.cfg.Clock()); seen.After(since) {
		return false, g.vault.restore(id, *d, seen.UnixMilli()) // left to the reaper
	}
	d.Unused = true
	return true, g.vault.owe(id, *d)
}

// lastSeen reads when the homeserver saw a device: zero if never. A time that cannot
// be read, or is to come, counts as now.
func lastSeen(device object, now time.Time) time.Time {
	value := device.get(memberLastSeen)
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
func (g *Gateway) storeNow(ctx context.Context) (time.Time, error) {
	m, err := g.once.Marks(ctx, "")
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the service for its time: %w", err)
	}
	return m.Now, nil
}

// logoutUpstream ends a token at the homeserver, and its device with it. A token
// that is not known there is ended.
func (g *Gateway) logoutUpstream(ctx context.Context, token string, who forWhom) error {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.patience.upstream)
	defer cancel()
	req, err := g.newUpstreamRequest(ctx, http.MethodPost, pathLogout, token, who)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	setRequestBody(req, object{}.encode())
	resp, err := g.proxy.Transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody))
		return nil
	}
	var code string
	if data, err := readResponse(resp); err == nil {
		if body, err := parseObject(data); err == nil {
			code, _ = body.text("errcode")
		}
	}
	if settlesLogout(resp.StatusCode, code) {
		return nil
	}
	return &statusError{resp.StatusCode}
}

// statusError is an answer of the homeserver's that was not expected.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return "the homeserver answered with status " + strconv.Itoa(e.status)
}
