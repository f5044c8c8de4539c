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
)

// activate mints the access macaroon of a login and fetches its first discharge. It
// waits while the service is unavailable: the homeserver has issued a token already.
func (g *Gateway) activate(ctx context.Context, x *exchange, p homeserver.MintParams, in upstreamLogin) (client.Grant, error) {
	w := g.waiterFor(x, nil)
	// Pending revocations of the user must not end the new session: they are sent first.
	_, err := service.Do(ctx, g.service, w, func(ctx context.Context) (struct{}, error) { return struct{}{}, g.outbox.FlushUser(ctx, in.user) })
	if err != nil {
		return client.Grant{}, err
	}
	m, err := g.hs.Mint(p)
	if err != nil {
		return client.Grant{}, err
	}
	request := client.Request{ // all attempts have one request id
		Access: client.Access{Macaroon: m.Macaroon}, RequestID: rand.Text(), ClientIP: x.client, UserAgent: in.userAgent,
	}
	return service.Do(ctx, g.service, w, func(ctx context.Context) (client.Grant, error) {
		grant, err := g.service.API.Discharge(ctx, request)
		g.metrics.Discharge("login", err)
		return grant, err
	})
}

// abandon undoes a login that the homeserver accepted and that has no session. No
// client has a token of its device, which would go on receiving keys, so the device is
// logged out. It stays if the client named it, since it may be old and have keys, or if
// another session has or had it. The outbox retries calls that fail.
func (g *Gateway) abandon(ctx context.Context, x *exchange, in upstreamLogin, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.timeouts.upstream)
	defer cancel()
	if !errors.Is(why, client.ErrRefused) { // the session may have begun although the response was lost
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
