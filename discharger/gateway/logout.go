package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/metrics"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/wire"
)

// The homeserver deletes the device with its keys at POST /logout with any of the
// device's tokens. So the request is forwarded only for the session that has the device
// at the service. The service ends the session first: it alone detects an old copy of a
// token.

// verifyLogout verifies the token of POST /logout, which may have expired.
func (g *Gateway) verifyLogout(ctx context.Context, x *exchange, c token.Credential, from homeserver.Request) (err error) {
	if c.Kind == token.Held {
		p, err := g.verifyAccess(ctx, c.Text, from)
		if err == nil {
			x.identity, x.narrowed = p.Identity, p.Attenuated
		}
		return err
	}
	x.identity, err = g.verifyUntimed(ctx, c.Text, from)
	x.expired = err == nil && !g.cfg.clock().Before(x.identity.Expires.Add(g.cfg.Leeway))
	return err
}

// checkLogout checks the conditions of an expired bundle. A session that a policy
// narrowed may log out.
func checkLogout(ctx context.Context, c homeserver.Caveat) error {
	if x := exchangeOf(ctx); x != nil && x.route == matrix.Logout {
		return nil
	}
	return checkCondition(ctx, c)
}

// verifyUntimed verifies a bundle and its discharge without their expiries. The client
// address is checked: a bundle for another address may be a copy.
func (g *Gateway) verifyUntimed(ctx context.Context, text string, from homeserver.Request) (homeserver.Identity, error) {
	if _, err := token.ParseAccess(text); err != nil {
		return homeserver.Identity{}, err
	}
	id, err := g.untimed.Verify(ctx, text[token.PrefixSize:], from)
	if err == nil && id.Mode != token.Mode(token.KindOf(text)) {
		err = token.ErrInvalid
	}
	return id, err
}

// provenEpoch returns the epoch of an expired token, which the service compares with
// the current one; 0: the token has not expired.
func (x *exchange) provenEpoch() uint64 {
	if !x.expired {
		return 0
	}
	return x.identity.Epoch
}

// decideLogout decides about POST /logout and reports whether to forward it. Without
// that and without a refusal, the client is logged out already.
func (g *Gateway) decideLogout(ctx context.Context, x *exchange) (pass bool, f *reply.Refusal) {
	id := x.identity
	if e, ended := g.outbox.Ends.Get(id.Session); ended && (!e.Soft || e.Replaced()) {
		return false, g.refusal(ctx, e.Refusal())
	}
	for _, user := range []string{"", id.User} { // "": logins that name the device but not their user
		if err := g.lease(ctx, x, user, id.Device, admission.Claim{}); err != nil {
			return false, g.refusal(ctx, err)
		}
	}
	state := g.outbox.State
	if x.expired { // an expired token's logout is not left to the outbox
		state = g.awaitState
	}
	s, err := state(ctx, id.User, id.Device, id.Session)
	switch {
	case err != nil:
		return false, g.deferLogout(ctx, x, err)
	case s.Live:
		return g.logoutLive(ctx, x, s)
	case s.End != nil && !s.End.Expired(), s.Others:
		g.outbox.NoteEnd(ctx, id, s.Ended())
		return false, g.refusal(ctx, s.Ended().Refusal())
	}
	return g.logoutEnded(ctx, x, s)
}

// logoutLive ends a live session at the service.
func (g *Gateway) logoutLive(ctx context.Context, x *exchange, s outbox.State) (pass bool, f *reply.Refusal) {
	id := x.identity
	out, err := g.service.API.RevokeSession(ctx, id.User, id.Session, wire.RevokeOptions{Epoch: x.provenEpoch()})
	g.metrics.Revocations.WithLabelValues(metrics.Result(err)).Inc()
	switch {
	case err != nil:
		return false, g.deferLogout(ctx, x, err)
	case out.Ended == 0: // ended by another request in the meantime
		if s, err = g.outbox.State(ctx, id.User, id.Device, id.Session); err != nil {
			return false, g.deferLogout(ctx, x, err)
		}
		g.outbox.NoteEnd(ctx, id, s.Ended())
		return false, g.refusal(ctx, s.Ended().Refusal())
	}
	g.outbox.EndLocally(ctx, outbox.Job{Op: outbox.EndSession, User: id.User, Session: id.Session})
	if s.Others {
		return false, nil
	}
	g.recordLogout(ctx, id)
	return true, nil
}

// recordLogout records that the device of an ended session is still to be logged out at
// the homeserver.
func (g *Gateway) recordLogout(ctx context.Context, id homeserver.Identity) {
	err := g.outbox.Store.AddLogout(id.Session, outbox.PendingLogout{Box: []byte(id.Payload), User: id.User, Device: id.Device, Named: true, Left: true})
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record pending logout", slog.Any("error", err))
	}
}

// logoutEnded logs out the device of a session that ended by time, if the token is
// current. That is certain for a session that the service still has, and for one in
// mode held, whose token never changes, if the outbox has its device: a newer login or
// a revocation would have removed it.
func (g *Gateway) logoutEnded(ctx context.Context, x *exchange, s outbox.State) (pass bool, f *reply.Refusal) {
	id := x.identity
	out, err := g.service.API.RevokeSession(ctx, id.User, id.Session, wire.RevokeOptions{Soft: true, Epoch: x.provenEpoch()})
	switch {
	case err != nil:
		return false, g.deferLogout(ctx, x, err)
	case !out.Known && (x.kind != token.Held || !g.outbox.Store.HasDevice(id.Session)):
		g.outbox.NoteEnd(ctx, id, s.Ended())
		return false, g.refusal(ctx, s.Ended().Refusal())
	}
	g.outbox.NoteEnd(ctx, id, outbox.End{Soft: true, Cause: revocation.CauseExpired})
	return true, nil
}

// deferLogout handles a logout that the service did not decide. With an unexpired
// token, the logout is left to the outbox and the session ends here.
func (g *Gateway) deferLogout(ctx context.Context, x *exchange, err error) *reply.Refusal {
	id := x.identity
	if !errors.Is(err, client.ErrUnavailable) || x.expired {
		return g.refusal(ctx, err)
	}
	g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "service did not decide a logout, retrying", slog.Any("error", err))
	g.outbox.Keep(ctx, outbox.Job{Op: outbox.EndSession, User: id.User, Session: id.Session, At: g.cfg.clock().UnixMilli()})
	g.outbox.NoteEnd(ctx, id, outbox.End{Cause: revocation.CauseLogout})
	return nil
}

// answerLogout reads the homeserver's response to a logout, and removes the record of
// one that is done. A token unknown there is logged out.
func (g *Gateway) answerLogout(resp *http.Response, x *exchange) error {
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		body, err := jsonbody.ReadLenient(resp)
		if err != nil {
			return err
		}
		if code, _ := body.Text("errcode"); !upstream.LogoutDone(resp.StatusCode, code) {
			return nil
		}
	} else if resp.StatusCode != http.StatusOK {
		return nil
	}
	x.loggedOut = true
	if err := g.outbox.Store.Drop(x.identity.Session); err != nil {
		g.cfg.Log.LogAttrs(resp.Request.Context(), slog.LevelError, "cannot record completed logout", slog.Any("error", err))
	}
	if resp.StatusCode == http.StatusUnauthorized {
		resp.StatusCode, resp.Status = http.StatusOK, ""
		jsonbody.SetResponse(resp, jsonbody.Object{}.Encode())
	}
	return nil
}

// verifyLogoutAll verifies the token of POST /logout/all. It must not fail because a
// token has expired, so for a live session an expired token of the current epoch or the
// next, still unconfirmed one is accepted.
func (g *Gateway) verifyLogoutAll(ctx context.Context, x *exchange, token string, from homeserver.Request) error {
	err := g.verifyRotate(ctx, x, token, from)
	if !errors.Is(err, homeserver.ErrExpired) {
		return err
	}
	id, err := g.verifyUntimed(ctx, token, from)
	if err != nil {
		return err
	}
	x.identity = id
	if err := g.outbox.Over(ctx, id); err != nil {
		return err
	}
	g.service.Epochs.Report(ctx, id.Session)
	s, err := g.awaitState(ctx, id.User, id.Device, id.Session)
	switch {
	case err != nil:
		return err
	case !s.Live:
		g.outbox.NoteEnd(ctx, id, s.Ended())
		return s.Ended().Refusal()
	case id.Epoch < s.Epoch: // the newest may be one above the confirmed one
		return &client.RefusedError{Reason: wire.ReasonTokenSuperseded, Message: "a newer token of this session is in use"}
	}
	return nil
}
