package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/metrics"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/wire"
)

// A logout at the homeserver deletes the device with its keys, whichever of the
// device's tokens it comes with. So POST /logout is passed on only for the
// session that has the device at the service, and the service ends it first: the
// token may be an old copy, which only the service can find out.

// verifyLogout verifies the token of POST /logout. It needs no live discharge: a
// client has to be able to log out though its token has run out.
func (g *Gateway) verifyLogout(ctx context.Context, x *exchange, c token.Credential, from homeserver.Request) (err error) {
	if c.Kind == token.Held {
		x.identity, x.narrowed, err = g.verifyAccess(ctx, c.Text, from)
		return err
	}
	x.identity, err = g.verifyExpired(ctx, c.Text, from)
	x.expired = err == nil && !g.cfg.clock().Before(x.identity.Expires.Add(g.cfg.Leeway))
	return err
}

// checkLogout decides about conditions in a bundle whose times do not count. A
// session that a policy narrowed may log out.
func checkLogout(ctx context.Context, c homeserver.Caveat) error {
	if x := exchangeOf(ctx); x != nil && x.route == routeLogout {
		return nil
	}
	return checkCondition(ctx, c)
}

// verifyExpired verifies a bundle, its discharge included, but for its times. A
// discharge for another address is no proof here either: it may be a copy.
func (g *Gateway) verifyExpired(ctx context.Context, text string, from homeserver.Request) (homeserver.Identity, error) {
	if _, err := token.ParseAccess(text); err != nil {
		return homeserver.Identity{}, err
	}
	id, err := g.lenient.Verify(ctx, text[token.PrefixSize:], from)
	if err == nil && id.Mode != token.Mode(token.KindOf(text)) {
		err = token.ErrInvalid
	}
	if err != nil {
		return homeserver.Identity{}, err
	}
	return id, nil
}

// provenEpoch returns the epoch by which the service judges the client of an
// exchange; 0: its token has not run out, and is as good as any.
func (x *exchange) provenEpoch() uint64 {
	if !x.expired {
		return 0
	}
	return x.identity.Epoch
}

// decideLogout decides about POST /logout. It reports whether the request is to be
// passed on; if not, and without a failure, the client is logged out already.
func (g *Gateway) decideLogout(ctx context.Context, x *exchange) (pass bool, f *reply.Refusal) {
	id := x.identity
	if e, dead := g.outbox.Ends.Get(id.Session); dead && (!e.Soft || e.Replaced()) {
		return false, g.refusal(ctx, e.Refusal())
	}
	if err := g.leaseLogout(ctx, x, id.User, id.Device); err != nil {
		return false, g.refusal(ctx, &client.UnavailableError{Err: err})
	}
	ask := g.outbox.State
	if x.expired { // it is not kept for later
		ask = g.awaitStanding
	}
	s, err := ask(ctx, id.User, id.Device, id.Session)
	switch {
	case err != nil:
		return false, g.leaveLater(ctx, x, err)
	case s.Live:
		return g.leaveLive(ctx, x, s)
	case s.End != nil && !s.End.Expired(), s.Others:
		g.outbox.NoteEnd(ctx, id, s.Ended())
		return false, g.refusal(ctx, s.Ended().Refusal())
	}
	return g.leaveOver(ctx, x, s)
}

// leaveLive ends a live session at the service.
func (g *Gateway) leaveLive(ctx context.Context, x *exchange, s outbox.State) (pass bool, f *reply.Refusal) {
	id := x.identity
	out, err := g.service.API.RevokeSession(ctx, id.User, id.Session, wire.RevokeOptions{Epoch: x.provenEpoch()})
	g.metrics.Revocations.WithLabelValues(metrics.Result(err)).Inc()
	switch {
	case err != nil:
		return false, g.leaveLater(ctx, x, err)
	case out.Ended == 0: // something else ended it in the meantime
		if s, err = g.outbox.State(ctx, id.User, id.Device, id.Session); err != nil {
			return false, g.leaveLater(ctx, x, err)
		}
		g.outbox.NoteEnd(ctx, id, s.Ended())
		return false, g.refusal(ctx, s.Ended().Refusal())
	}
	g.outbox.EndLocally(ctx, outbox.Job{Op: outbox.EndSession, User: id.User, Session: id.Session})
	if s.Others {
		return false, nil
	}
	g.owe(ctx, id)
	return true, nil
}

// owe writes down that the device of a session that logged out is to be logged out at
// the homeserver, in case that is not done at once.
func (g *Gateway) owe(ctx context.Context, id homeserver.Identity) {
	err := g.outbox.Store.AddLogout(id.Session, outbox.PendingLogout{Box: []byte(id.Payload), User: id.User, Device: id.Device, Named: true, Left: true})
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record pending logout", slog.Any("error", err))
	}
}

// leaveOver logs out the device of a session that is over by time, if the token
// is not an old copy. That is known of sessions which the service remembers, and
// of those in mode held, whose token is always the same, if the vault has them: not
// if a newer login on the device replaced them, or a decision ended them.
func (g *Gateway) leaveOver(ctx context.Context, x *exchange, s outbox.State) (pass bool, f *reply.Refusal) {
	id := x.identity
	out, err := g.service.API.RevokeSession(ctx, id.User, id.Session, wire.RevokeOptions{Soft: true, Epoch: x.provenEpoch()})
	switch {
	case err != nil:
		return false, g.leaveLater(ctx, x, err)
	case !out.Known && (x.kind != token.Held || !g.outbox.Store.HasDevice(id.Session)):
		g.outbox.NoteEnd(ctx, id, s.Ended())
		return false, g.refusal(ctx, s.Ended().Refusal())
	}
	g.outbox.NoteEnd(ctx, id, outbox.End{Soft: true, Reason: string(revocation.CauseExpired)})
	return true, nil
}

// leaveLater is for a logout that the service does not decide about. One whose
// token has not run out is kept for later, and the client is logged out here.
func (g *Gateway) leaveLater(ctx context.Context, x *exchange, err error) *reply.Refusal {
	id := x.identity
	if !errors.Is(err, client.ErrUnavailable) || x.expired {
		return g.refusal(ctx, err)
	}
	g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "logout cannot be decided yet, keeping it for later", slog.Any("error", err))
	g.outbox.Keep(ctx, outbox.Job{Op: outbox.EndSession, User: id.User, Session: id.Session, At: g.cfg.clock().UnixMilli()})
	g.outbox.NoteEnd(ctx, id, outbox.End{Reason: string(revocation.CauseLogout)})
	return nil
}

// left is called after a logout was passed on. If the device may still be at the
// homeserver, it is logged out later.
func (g *Gateway) left(ctx context.Context, x *exchange) {
	if !x.settled {
		g.owe(ctx, x.identity)
		g.outbox.Wake()
	}
}

// settleLeft takes a logout that the homeserver has carried out off the list.
func (g *Gateway) settleLeft(ctx context.Context, x *exchange) {
	x.settled = true
	if err := g.outbox.Store.Drop(x.identity.Session); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record completed logout", slog.Any("error", err))
	}
}

// answerLogout looks at the homeserver's answer to a logout. A token that is not
// known there is logged out.
func (g *Gateway) answerLogout(resp *http.Response, x *exchange) error {
	ctx := resp.Request.Context()
	switch resp.StatusCode {
	case http.StatusOK:
		g.settleLeft(ctx, x)
	case http.StatusUnauthorized, http.StatusForbidden:
		data, err := jsonbody.ReadResponse(resp)
		if err != nil {
			return err
		}
		body, err := jsonbody.Parse(data)
		if err != nil {
			return nil
		}
		code, _ := body.Text("errcode")
		if upstream.LogoutDone(resp.StatusCode, code) {
			g.settleLeft(ctx, x)
		}
		if x.settled && resp.StatusCode == http.StatusUnauthorized {
			resp.StatusCode, resp.Status = http.StatusOK, ""
			jsonbody.SetResponse(resp, jsonbody.Object{}.Encode())
		}
	}
	return nil
}

// verifyEverywhere verifies the token of POST /logout/all. Signing out everywhere
// must not fail because a token has run out, so of a live session that of the
// current epoch is accepted then, and that of the one before.
func (g *Gateway) verifyEverywhere(ctx context.Context, x *exchange, token string, from homeserver.Request) error {
	err := g.verifyRotate(ctx, x, token, from)
	if !errors.Is(err, homeserver.ErrExpired) {
		return err
	}
	id, err := g.verifyExpired(ctx, token, from)
	if err != nil {
		return err
	}
	x.identity = id
	if err := g.outbox.Over(ctx, id); err != nil {
		return err
	}
	g.service.Epochs.Report(ctx, id.Session)
	s, err := g.awaitStanding(ctx, id.User, id.Device, id.Session)
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
