package gateway

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// authenticate verifies a gateway token and unseals the homeserver's.
func (g *Gateway) authenticate(r *http.Request, x *exchange, c token.Credential) *reply.Refusal {
	from := homeserver.Request{ClientIP: x.client}
	ctx := r.Context()
	var err error
	switch {
	case x.route == matrix.Logout:
		err = g.verifyLogout(ctx, x, c, from)
	case x.route == matrix.LogoutAll && c.Kind == token.Rotate:
		err = g.verifyLogoutAll(ctx, x, c.Text, from)
	case c.Kind == token.Held:
		err = g.verifyHeld(ctx, x, c.Text, x.origin(r))
	default:
		if err = g.verifyRotate(ctx, x, c.Text, from); dischargeExpired(err) {
			err = g.refuseExpired(ctx, x, c.Text, from, err)
		}
	}
	if err == nil {
		if x.upstream, err = g.openUpstream(x.identity); err == nil {
			return nil
		}
	}
	var refused *client.RefusedError
	if errors.As(err, &refused) && refused.Ended && x.identity.Payload != "" {
		g.outbox.NoteEnd(ctx, x.identity, outbox.FromRefusal(refused))
	}
	x.identity = homeserver.Identity{}
	return g.refusal(ctx, err)
}

// verifyAccess verifies the access macaroon of a token, which must have the mode of the
// token's prefix: a bundle whose discharge was cut off is no held token.
func (g *Gateway) verifyAccess(ctx context.Context, text string, from homeserver.Request) (*service.Presented, error) {
	b, err := token.ParseAccess(text)
	if err != nil {
		return nil, err
	}
	id, err := g.hs.VerifyAccess(ctx, text[token.PrefixSize:], from)
	if err != nil {
		return nil, err
	}
	if id.Mode != token.Mode(token.KindOf(text)) {
		return nil, token.ErrInvalid
	}
	access, err := token.AccessOf(b)
	return &service.Presented{Identity: id, Access: access, Attenuated: len(b.Access.Caveats) > 1}, err
}

// verifyRotate verifies a bundle offline.
func (g *Gateway) verifyRotate(ctx context.Context, x *exchange, text string, from homeserver.Request) error {
	_, known := g.canonical.Get(text)
	if !known {
		if _, err := token.ParseAccess(text); err != nil {
			return err
		}
	}
	id, err := g.hs.Verify(ctx, text[token.PrefixSize:], from)
	if err != nil {
		return err
	}
	if id.Mode != caveat.ModeRotate {
		return token.ErrInvalid
	}
	if !known {
		g.canonical.Put(strings.Clone(text), struct{}{})
	}
	x.identity = id
	g.service.Epochs.Note(id)
	return g.outbox.Over(ctx, id)
}

// dischargeExpired reports whether a bundle was refused for the expiry of its discharge.
func dischargeExpired(err error) bool {
	var invalid *homeserver.Error
	return errors.As(err, &invalid) && invalid.Kind == homeserver.ErrExpired && invalid.Part == homeserver.PartDischarge
}

// refuseExpired returns the error for a bundle whose discharge has expired. Some
// clients end the session for good at the answer "expired", so it is returned only if
// the service can decide about a refresh now, and could when the discharge expired.
func (g *Gateway) refuseExpired(ctx context.Context, x *exchange, token string, from homeserver.Request, expired error) error {
	id, err := g.verifyUntimed(ctx, token, from)
	if err != nil {
		return expired
	}
	x.identity = id
	known := func() error { return g.outbox.Over(ctx, id) }
	if err := known(); err != nil {
		return err
	}
	signs := g.service.Link.Recovered()
	if err := g.service.Ready(ctx, g.waiterFor(x, known)); err != nil {
		return err
	}
	if g.service.Link.Recovered() != signs || g.service.Link.CouldNotRefresh(id.Expires) {
		return &client.UnavailableError{Err: errors.New("service was unavailable when the access token expired")}
	}
	return expired
}

// verifyHeld verifies an access macaroon with its cached discharge, or with one that it
// fetches.
func (g *Gateway) verifyHeld(ctx context.Context, x *exchange, text string, who upstream.Origin) error {
	from := homeserver.Request{ClientIP: x.client}
	p, ok := g.service.Discharges.Tokens.Get(text)
	if !ok {
		// Only a genuine token may cause a fetch.
		var err error
		if p, err = g.verifyAccess(ctx, text, from); err != nil {
			return err
		}
		g.service.Discharges.Tokens.Put(strings.Clone(text), p)
	}
	if err := g.outbox.Over(ctx, p.Identity); err != nil {
		x.identity = p.Identity
		return err
	}
	if p.Attenuated {
		// Nor may a token whose own conditions are not met.
		if _, err := g.hs.VerifyAccess(ctx, text[token.PrefixSize:], from); err != nil {
			return err
		}
	}
	id, err := g.verifyDischarged(ctx, p, who)
	var invalid *homeserver.Error
	if errors.As(err, &invalid) && boundElsewhere(invalid) {
		// A policy bound the discharge to the client's former address.
		if err = errElsewhere; g.service.Discharges.Rebind(g.service.Discharges.Session(p.Identity.Session)) {
			id, err = g.verifyDischarged(ctx, p, who)
		}
	}
	if err != nil {
		id = p.Identity
	}
	x.identity, x.narrowed = id, p.Attenuated
	return err
}

var errElsewhere = errors.New("session is in use at another address")

// boundElsewhere reports whether a discharge is bound to another client address.
func boundElsewhere(e *homeserver.Error) bool {
	return e.Part == homeserver.PartDischarge && e.Kind == homeserver.ErrNotMet && strings.HasPrefix(e.Condition, rawmacaroon.CondClientIP+" ")
}

// verifyDischarged verifies a held token with its current discharge.
func (g *Gateway) verifyDischarged(ctx context.Context, p *service.Presented, who upstream.Origin) (homeserver.Identity, error) {
	wait := func() service.Waiter {
		return g.waiterFor(exchangeOf(ctx), func() error { return g.outbox.Over(ctx, p.Identity) })
	}
	bundle, err := g.service.Discharges.Bundle(ctx, p, who, wait)
	if err != nil {
		return homeserver.Identity{}, err
	}
	id, err := g.hs.Verify(ctx, bundle, homeserver.Request{ClientIP: who.Addr})
	if dischargeExpired(err) {
		g.service.Discharges.Drop(p.Identity.Session)
		return id, &client.UnavailableError{Err: errors.New("new discharge has already expired: clocks of gateway and service differ")}
	}
	return id, err
}

// openUpstream unseals the homeserver's token of a session.
func (g *Gateway) openUpstream(id homeserver.Identity) (string, error) {
	if o, ok := g.upstreamTokens.Get(id.Session); ok && o.payload == id.Payload {
		return o.token, nil
	}
	token, err := g.sealer.OpenUpstream(id.Session, []byte(id.Payload))
	if err != nil {
		return "", err
	}
	g.upstreamTokens.Put(id.Session, openedToken{payload: id.Payload, token: token})
	return token, nil
}

// refusal maps an error to a response. An undecided request never ends a session,
// soft_logout is as the service decided, and the message states an end only if there is
// one.
func (g *Gateway) refusal(ctx context.Context, err error) *reply.Refusal {
	var refused *client.RefusedError
	var unavailable *client.UnavailableError
	var invalid *homeserver.Error
	switch {
	case errors.As(err, &refused):
		return g.refused(ctx, refused)
	case errors.As(err, &unavailable):
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "service is unavailable, request answered 503", slog.Any("error", err))
		return reply.Undecided(unavailable.RetryAfter)
	case errors.Is(err, client.ErrBadRequest):
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "service rejects the gateway's requests as malformed", slog.Any("error", err))
		return reply.Undecided(0)
	case errors.Is(err, homeserver.ErrUnknownKey):
		// The key may be newer than the key file that this process has read.
		g.metrics.UnknownKeys.Inc()
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "unknown key, request answered 503", slog.Any("error", err))
		return reply.Undecided(0)
	case errors.Is(err, homeserver.ErrRetiredKey):
		return reply.UnknownToken("The session is over: its key was retired. Log in again.", true)
	case errors.As(err, &invalid) && boundElsewhere(invalid):
		return reply.UnknownToken("Access token is for another address.", true) // the client refreshes, and gets a token for its address
	case errors.Is(err, errElsewhere):
		return reply.Forbidden("This access token was used from another address a moment ago.")
	case errors.Is(err, homeserver.ErrNotMet):
		return reply.Forbidden("This access token was narrowed, and does not allow this.")
	case errors.Is(err, homeserver.ErrExpired):
		return reply.UnknownToken("Access token has expired.", true)
	case errors.Is(err, homeserver.ErrUnknownCaveat):
		return reply.UnknownToken("Access token has a condition that is not known here.", true)
	}
	return reply.UnknownToken("Unknown access token.", true)
}

// refused maps a refusal by the service to the end of the session or the denial of a
// request.
func (g *Gateway) refused(ctx context.Context, r *client.RefusedError) *reply.Refusal {
	switch {
	case r.Ended:
		return reply.UnknownToken("The session is over: "+messageOf(r), r.SoftLogout)
	case r.Reason == wire.ReasonTokenSuperseded:
		return reply.UnknownToken("The access token has expired: "+messageOf(r), true)
	case r.Reason == wire.ReasonTokenRequired, r.Reason == wire.ReasonTokenInvalid, r.Reason == wire.ReasonHomeserverRequired:
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "service refuses the gateway, check its keys and configuration", slog.Any("error", r))
		return reply.Undecided(0)
	}
	return reply.Forbidden("This request was refused: " + messageOf(r))
}

func messageOf(r *client.RefusedError) string { return cmp.Or(r.Message, r.Reason) }
