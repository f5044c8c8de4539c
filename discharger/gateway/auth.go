package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// authenticate verifies a token of the gateway's and unseals the homeserver's.
func (g *Gateway) authenticate(r *http.Request, x *exchange, c token.Credential) *reply.Refusal {
	from := homeserver.Request{ClientIP: x.client}
	ctx := r.Context()
	var err error
	switch {
	case x.route == routeLogout:
		err = g.verifyLogout(ctx, x, c, from)
	case x.route == routeLogoutAll && c.Kind == token.Rotate:
		err = g.verifyEverywhere(ctx, x, c.Text, from)
	case c.Kind == token.Held:
		err = g.verifyHeld(ctx, x, c.Text, x.origin(r))
	default:
		if err = g.verifyRotate(ctx, x, c.Text, from); ranOut(err) {
			err = g.verifyRanOut(ctx, x, c.Text, from, err)
		}
	}
	if err != nil {
		var refused *client.RefusedError
		if errors.As(err, &refused) && refused.Ended && x.identity.Payload != "" {
			g.outbox.NoteEnd(ctx, x.identity, outbox.FromRefusal(refused))
		}
		x.identity = homeserver.Identity{}
		return g.refusal(ctx, err)
	}
	if x.upstream, err = g.openUpstream(x.identity); err != nil {
		x.identity = homeserver.Identity{}
		return g.refusal(ctx, err)
	}
	return nil
}

// verifyAccess verifies the access macaroon in a token. It has to be of the mode
// that the token claims: a bundle whose discharge was cut off is no token that
// discharges are fetched for.
func (g *Gateway) verifyAccess(ctx context.Context, text string, from homeserver.Request) (id homeserver.Identity, narrowed bool, err error) {
	b, err := token.ParseAccess(text)
	if err != nil {
		return homeserver.Identity{}, false, err
	}
	if id, err = g.hs.VerifyAccess(ctx, text[token.PrefixSize:], from); err != nil {
		return homeserver.Identity{}, false, err
	}
	if id.Mode != token.Mode(token.KindOf(text)) {
		return homeserver.Identity{}, false, token.ErrInvalid
	}
	return id, len(b.Access.Caveats) > 1, nil
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
	if x.identity = id; g.service.Epochs.New(id) {
		g.service.Epochs.Note(id)
	}
	return g.outbox.Over(ctx, id)
}

// ranOut reports whether a bundle is refused because its discharge has run out.
func ranOut(err error) bool {
	var invalid *homeserver.Error
	return errors.As(err, &invalid) && invalid.Kind == homeserver.ErrExpired && invalid.Part == homeserver.PartDischarge
}

// verifyRanOut returns why a bundle is refused whose discharge has run out: expired
// is that it has. Some clients end for good at that answer. So it is given only if
// the service can decide about a refresh, and could when the discharge ran out.
func (g *Gateway) verifyRanOut(ctx context.Context, x *exchange, token string, from homeserver.Request, expired error) error {
	id, err := g.verifyExpired(ctx, token, from)
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
		return &client.UnavailableError{Err: errMayRefresh}
	}
	return expired
}

var errMayRefresh = errors.New("the service was away when the access token ran out")

// verifyHeld verifies an access macaroon together with the discharge that the
// gateway has for it, or fetches.
func (g *Gateway) verifyHeld(ctx context.Context, x *exchange, text string, who upstream.Origin) error {
	from := homeserver.Request{ClientIP: x.client}
	p, ok := g.service.Discharges.Tokens.Get(text)
	if !ok {
		// Before anything is fetched on behalf of a token, it has to be genuine.
		var err error
		if p, err = g.present(ctx, text, from); err != nil {
			return err
		}
	}
	if err := g.outbox.Over(ctx, p.Identity); err != nil {
		x.identity = p.Identity // whose session it was
		return err
	}
	if p.Attenuated {
		// Nor is anything fetched where the token is not good.
		if _, err := g.hs.VerifyAccess(ctx, text[token.PrefixSize:], from); err != nil {
			return err
		}
	}
	id, err := g.verifyDischarged(ctx, p, who)
	var invalid *homeserver.Error
	if errors.As(err, &invalid) && boundElsewhere(invalid) {
		// A policy bound the discharge to where the client was.
		if err = errElsewhere; g.service.Discharges.Rebind(g.service.Discharges.Session(p.Identity.Session)) {
			id, err = g.verifyDischarged(ctx, p, who)
		}
	}
	x.identity, x.narrowed = id, p.Attenuated
	if err != nil {
		x.identity = p.Identity // whose session it was
	}
	return err
}

var errElsewhere = errors.New("session is in use at another address")

// boundElsewhere reports whether a discharge is bound to another address than the
// client's.
func boundElsewhere(e *homeserver.Error) bool {
	return e.Part == homeserver.PartDischarge && e.Kind == homeserver.ErrNotMet && strings.HasPrefix(e.Condition, rawmacaroon.CondClientIP+" ")
}

// verifyDischarged verifies a held token with the discharge that there is.
func (g *Gateway) verifyDischarged(ctx context.Context, p *service.Presented, who upstream.Origin) (homeserver.Identity, error) {
	wait := func() service.Waiter {
		return g.waiterFor(exchangeOf(ctx), func() error { return g.outbox.Over(ctx, p.Identity) })
	}
	bundle, err := g.service.Discharges.Bundle(ctx, p, who, wait)
	if err != nil {
		return homeserver.Identity{}, err
	}
	id, err := g.hs.Verify(ctx, bundle, homeserver.Request{ClientIP: who.Addr})
	var invalid *homeserver.Error
	if errors.As(err, &invalid) && invalid.Kind == homeserver.ErrExpired && invalid.Part == homeserver.PartDischarge {
		g.service.Discharges.Drop(p.Identity.Session)
		return id, &client.UnavailableError{Err: errors.New("a new discharge has expired already: clocks differ, here and at the service")}
	}
	return id, err
}

// present verifies a held token that was not seen before.
func (g *Gateway) present(ctx context.Context, text string, from homeserver.Request) (*service.Presented, error) {
	b, err := token.ParseAccess(text)
	if err != nil {
		return nil, err
	}
	id, narrowed, err := g.verifyAccess(ctx, text, from)
	if err != nil {
		return nil, err
	}
	access, err := token.AccessOf(b)
	if err != nil {
		return nil, err
	}
	p := &service.Presented{Identity: id, Access: access, Attenuated: narrowed}
	g.service.Discharges.Tokens.Put(strings.Clone(text), p)
	return p, nil
}

// openUpstream unseals the homeserver's token of a session.
func (g *Gateway) openUpstream(id homeserver.Identity) (string, error) {
	if o, ok := g.opened.Get(id.Session); ok && o.payload == id.Payload {
		return o.token, nil
	}
	token, err := g.sealer.OpenUpstream(id.Session, []byte(id.Payload))
	if err != nil {
		return "", err
	}
	g.opened.Put(id.Session, openedToken{payload: id.Payload, token: token})
	return token, nil
}

// refusal returns the answer to a token that is not accepted. An undecided call is
// never an end of a session, and soft_logout is as the service decided. The message
// states that the session is over only if it is.
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
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "service does not accept the gateway's requests", slog.Any("error", err))
		return reply.Undecided(0)
	case errors.Is(err, homeserver.ErrUnknownKey):
		return g.unknownKey(ctx, err)
	case errors.Is(err, homeserver.ErrRetiredKey):
		return reply.UnknownToken("The session is over: its key was retired. Log in again.", true)
	case errors.As(err, &invalid) && boundElsewhere(invalid):
		return reply.UnknownToken("Access token is for another address.", true) // the client refreshes, and gets one for this
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

// unknownKey answers a token that was made with a key that is not in the ring. The
// key may be newer than the key file that this process has read, so the request is
// undecided. Such a token is easily forged.
func (g *Gateway) unknownKey(ctx context.Context, err error) *reply.Refusal {
	g.metrics.UnknownKeys.Inc()
	g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "unknown key, request answered 503", slog.Any("error", err))
	return reply.Undecided(0)
}

// refused turns a refusal of the service's into an answer: the end of the
// session, or that of this request.
func (g *Gateway) refused(ctx context.Context, r *client.RefusedError) *reply.Refusal {
	switch {
	case r.Ended:
		return reply.UnknownToken("The session is over: "+sentence(r), r.SoftLogout)
	case r.Reason == wire.ReasonTokenSuperseded:
		return reply.UnknownToken("The access token has expired: "+sentence(r), true)
	case r.Reason == wire.ReasonTokenRequired, r.Reason == wire.ReasonTokenInvalid, r.Reason == wire.ReasonHomeserverRequired:
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "service refuses the gateway's request, its keys or its configuration are wrong", slog.Any("error", r))
		return reply.Undecided(0)
	}
	return reply.Forbidden("This request was refused: " + sentence(r))
}

func sentence(r *client.RefusedError) string {
	if r.Message != "" {
		return r.Message
	}
	return r.Reason
}
