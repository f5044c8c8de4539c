package gateway

import (
	"context"
	"errors"
	"log/slog"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// activate mints the session of a login and gets its first discharge. While the
// service decides nothing, it waits: the homeserver has made a token already.
func (g *Gateway) activate(ctx context.Context, x *exchange, p homeserver.MintParams, in loggedIn) (client.Grant, error) {
	w := g.waiterFor(x, nil)
	// Before the session is minted: what ended the user's sessions until now must
	// not end this one.
	_, err := pursue(ctx, g, w, func(ctx context.Context) (struct{}, error) { return struct{}{}, g.settleOrdersOf(ctx, in.user) })
	if err != nil {
		return client.Grant{}, err
	}
	m, err := g.hs.Mint(p)
	if err != nil {
		return client.Grant{}, err
	}
	// All attempts are one request.
	var name [16]byte
	if err := fillRandom(g.cfg.Rand, name[:]); err != nil {
		return client.Grant{}, err
	}
	request := client.Request{
		Access: client.Access{Macaroon: m.Macaroon}, RequestID: wire.EncodeBase64(name[:]), ClientIP: x.client, UserAgent: in.userAgent,
	}
	return pursue(ctx, g, w, func(ctx context.Context) (client.Grant, error) {
		grant, err := g.once.Discharge(ctx, request)
		g.metrics.fetched("login", err)
		return grant, err
	})
}

// abandon undoes a login that the homeserver agreed to and that no session was made
// of. Its device would go on receiving keys, and no client has a token of it, so it
// is logged out, if nothing but this login made it: not if the client named it, who
// may have had it for long and would lose its keys, and not if another session has
// it or had it before. What cannot be done now is done later.
func (g *Gateway) abandon(ctx context.Context, x *exchange, in loggedIn, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.patience.upstream)
	defer cancel()
	if !errors.Is(why, client.ErrRefused) { // the service may have begun the session, and its answer was lost
		g.keepOrder(ctx, order{Op: endSession, User: in.user, Session: in.session, At: g.cfg.Clock().UnixMilli()})
	}
	if x.login.device != "" {
		return
	}
	d := vaultDebt{Box: g.sealer.SealUpstream(in.session, in.token), User: in.user, Device: in.device, Named: true, New: true}
	if err := g.vault.condemn(in.session, d); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "logout cannot be written down", slog.Any("error", err))
	}
	if err := g.logOutNew(ctx, in, d, forWhom{x.client, in.userAgent}); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "device of a failed login is still at the homeserver, retrying", slog.Any("error", err))
		g.wake()
	}
}

// logOutNew logs out the device of a login that failed. The caller has the device's
// lease.
func (g *Gateway) logOutNew(ctx context.Context, in loggedIn, d vaultDebt, who forWhom) error {
	if ok, err := g.mayAbandon(ctx, in.session, d); err != nil || !ok {
		return err
	}
	if err := g.logoutUpstream(ctx, in.token, who); err != nil {
		return err
	}
	return g.vault.paid(in.session)
}

// mayAbandon reports whether the device of a login that failed is to be logged out.
// If not, it is taken off the list.
func (g *Gateway) mayAbandon(ctx context.Context, id caveat.SessionID, d vaultDebt) (bool, error) {
	if d.Device == "" {
		return true, nil // the token goes, and nothing else
	}
	had, err := g.hadSession(ctx, d.User, d.Device, id)
	if err != nil || !had {
		return err == nil, err
	}
	return false, g.vault.paid(id)
}

// hadSession asks the service whether another session has a device, or had it
// before.
func (g *Gateway) hadSession(ctx context.Context, user, device string, except caveat.SessionID) (bool, error) {
	live, err := g.once.Sessions(ctx, user)
	if err != nil {
		return false, err
	}
	for _, s := range live {
		if s.Device == device && s.ID != except {
			return true, nil
		}
	}
	ended, err := g.once.EndedSessions(ctx, user)
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
