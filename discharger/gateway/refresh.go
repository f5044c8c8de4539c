package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/clientaddr"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// refresh answers POST /refresh. It ignores the expired access token that some clients
// send.
//
// A client takes any JSON other than a 200 for the end of its session. So decided
// answers are JSON, and undecided ones text/plain.
func (g *Gateway) refresh(w http.ResponseWriter, r *http.Request, x *exchange) *reply.Refusal {
	data, f := g.readRequest(r)
	if f != nil {
		return f
	}
	in, err := g.parseBody(data)
	if err != nil {
		return reply.BadBody(data)
	}
	text, ok := in.Text(memberRefresh)
	switch {
	case in.Get(memberRefresh) == nil:
		return reply.BadRequest(matrix.CodeMissingParam, "Missing params: ['refresh_token']")
	case !ok:
		return reply.BadRequest(matrix.CodeInvalidParam, "Invalid param: refresh_token")
	}
	x.token, x.kind = true, token.KindOf(text)
	if x.kind == token.Foreign && !g.sealer.WasOurs(text) {
		if g.legacyRejected() {
			return reply.UnknownToken("This refresh token was issued before the gateway, and is no longer accepted. Log in again.", true)
		}
		r.Header.Del("Accept-Encoding")
		g.proxy.ServeHTTP(w, r)
		return nil
	}
	ctx := r.Context()
	grant, err := g.exchangeRefresh(ctx, r, x, text)
	if err != nil {
		return g.refreshRefused(ctx, x, err)
	}
	out, err := g.encodeGrant(grant, caveat.ModeRotate)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot encode token", slog.Any("error", err))
		return reply.Undecided(0).Text()
	}
	var body jsonbody.Object
	body.Set(memberAccess, jsonbody.Quote(out.access))
	body.Set(memberRefresh, jsonbody.Quote(out.refresh))
	body.Set(memberExpires, jsonbody.Number(out.expires.Milliseconds()))
	x.answer(w, body)
	return nil
}

// exchangeRefresh fetches the next discharge for a refresh token.
func (g *Gateway) exchangeRefresh(ctx context.Context, r *http.Request, x *exchange, text string) (client.Grant, error) {
	t, err := g.sealer.DecodeRefresh(text)
	if err != nil {
		return client.Grant{}, err
	}
	access, err := bundle.Encode(macaroon.Slice{t.Access})
	if err != nil {
		return client.Grant{}, token.ErrInvalid
	}
	id, err := g.hs.VerifyAccess(ctx, access, homeserver.Request{ClientIP: x.client})
	switch {
	case err != nil:
		return client.Grant{}, err
	case id.Mode != caveat.ModeRotate:
		return client.Grant{}, token.ErrInvalid
	}
	x.identity = id
	known := func() error { return g.outbox.Over(ctx, id) }
	if err := known(); err != nil {
		return client.Grant{}, err
	}
	if err := g.confirmUpstream(ctx, r, x); err != nil {
		return client.Grant{}, err
	}
	return g.service.Refresh(ctx, g.waiterFor(x, known), id.Session, client.Request{
		Access: client.Access{Macaroon: t.Access}, Token: t.Token, RequestID: g.requestID(text, x.client, r.UserAgent()),
		ClientIP: x.client, UserAgent: r.UserAgent(),
	})
}

// confirmUpstream confirms that the homeserver still accepts the session's token. It
// ends the session of a device that an administrator deleted there; if the homeserver
// does not answer, the refresh continues.
func (g *Gateway) confirmUpstream(ctx context.Context, r *http.Request, x *exchange) error {
	token, err := g.openUpstream(x.identity)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, g.cfg.timeouts.health)
	defer cancel()
	v, err := g.homeserver.Known(asking, token, x.origin(r))
	if err != nil || v.Known {
		return nil
	}
	e, err := g.endUnknown(ctx, x, v)
	if err != nil {
		return err
	}
	return e.Refusal()
}

// refreshRefused maps the failure of a refresh to a response. A denial is 401, soft
// unless the session ended hard.
func (g *Gateway) refreshRefused(ctx context.Context, x *exchange, err error) *reply.Refusal {
	var refused *client.RefusedError
	switch {
	case errors.Is(err, token.ErrInvalid):
		return reply.UnknownToken("Unknown refresh token.", true)
	case !errors.As(err, &refused):
	case refused.Ended:
		g.outbox.NoteEnd(ctx, x.identity, outbox.FromRefusal(refused))
	case refused.Reason == wire.ReasonTokenRequired, refused.Reason == wire.ReasonHomeserverRequired: // misconfigured gateway
	default:
		return reply.UnknownToken("The refresh was refused: "+messageOf(refused), true)
	}
	f := g.refusal(ctx, err)
	if f.Status != http.StatusUnauthorized {
		return f.Text()
	}
	return f
}

// requestID returns the same id for all attempts of one party at one refresh through
// this process: two tabs, or a repeated request, get the same next token. The party is
// that of the service, which counts an IPv6 address by its /64.
func (g *Gateway) requestID(text string, from netip.Addr, client string) string {
	network := clientaddr.Network(from).String()
	sum := rawmacaroon.Hash(&g.nonce, []byte(text), []byte{0}, []byte(network), []byte{0}, []byte(client))
	return wire.EncodeBase64(sum[:16])
}
