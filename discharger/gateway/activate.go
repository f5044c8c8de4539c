package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// activate mints the session of a login and gets its first discharge. While the
// service decides nothing, it waits: the homeserver has made a token already.
func (g *Gateway) activate(ctx context.Context, x *exchange, p homeserver.MintParams, in loggedIn) (client.Grant, error) {
	w := g.waiterFor(x, nil)
	// Before the session is minted: what ended the user's sessions until now must
	// not end this one.
	_, err := service.Do(ctx, g.service, w, func(ctx context.Context) (struct{}, error) { return struct{}{}, g.outbox.FlushUser(ctx, in.user) })
	if err != nil {
		return client.Grant{}, err
	}
	m, err := g.hs.Mint(p)
	if err != nil {
		return client.Grant{}, err
	}
	// All attempts are one request.
	var name [16]byte
	_, _ = rand.Read(name[:]) // never fails
	request := client.Request{
		Access: client.Access{Macaroon: m.Macaroon}, RequestID: wire.EncodeBase64(name[:]), ClientIP: x.client, UserAgent: in.userAgent,
	}
	return service.Do(ctx, g.service, w, func(ctx context.Context) (client.Grant, error) {
		grant, err := g.service.API.Discharge(ctx, request)
		g.metrics.Discharge("login", err)
		return grant, err
	})
}

// abandon undoes a login that the homeserver agreed to and that no session was made
// of. Its device would go on receiving keys, and no client has a token of it, so it
// is logged out, if nothing but this login made it: not if the client named it, who
// may have had it for long and would lose its keys, and not if another session has
// it or had it before. What cannot be done now is done later.
func (g *Gateway) abandon(ctx context.Context, x *exchange, in loggedIn, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.timeouts.upstream)
	defer cancel()
	if !errors.Is(why, client.ErrRefused) { // the service may have begun the session, and its answer was lost
		g.outbox.Keep(ctx, outbox.Job{Op: outbox.EndSession, User: in.user, Session: in.session, At: g.cfg.clock().UnixMilli()})
	}
	if x.login.device != "" {
		return
	}
	d := outbox.PendingLogout{Box: g.sealer.SealUpstream(in.session, in.token), User: in.user, Device: in.device, Named: true, New: true}
	if err := g.outbox.Store.AddLogout(in.session, d); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot record pending logout", slog.Any("error", err))
	}
	if err := g.outbox.LogOutNew(ctx, in.session, d, in.token, upstream.Origin{Addr: x.client, UserAgent: in.userAgent}); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "device of a failed login is still at the homeserver, retrying", slog.Any("error", err))
		g.outbox.Wake()
	}
}
