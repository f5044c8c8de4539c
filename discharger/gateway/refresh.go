package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/chain"
	"github.com/discharger/discharger/discharger/homeserver"
)

// refresh answers POST /refresh. The access token that some clients send along
// has run out, and is not looked at.
//
// A client takes any answer in JSON, but for 200, for the end of its session. So
// JSON says what was decided, and what was not is text/plain.
func (g *Gateway) refresh(w http.ResponseWriter, r *http.Request, x *exchange) *failure {
	g.hurry(w, bodyPatience)
	data, f := readRequest(r)
	if f != nil {
		return f
	}
	g.hurry(w, 0)
	body, err := parseObject(data)
	if err != nil {
		return badRequest(codeNotJSON, "Content not JSON.")
	}
	text, ok := body.text(memberRefresh)
	if !ok {
		return badRequest(codeInvalidParam, "refresh_token is missing, or not a string.")
	}
	x.token, x.kind = true, kindOf(text)
	if x.kind == kindForeign && !g.sealer.damaged(text) {
		return g.refreshForeign(w, r, x)
	}
	t, err := g.sealer.decodeRefresh(text)
	if err != nil {
		return unknownToken("Unknown refresh token.", true)
	}
	out, f := g.exchangeRefresh(r, x, t, text)
	if f != nil {
		return f
	}
	x.outcome = outcomeOwn
	h := w.Header()
	cors(h)
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	answer := object{
		{memberAccess, quote(out.access)}, {memberRefresh, quote(out.refresh)}, {memberExpires, number(out.expires.Milliseconds())},
	}.encode()
	h.Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(answer) // a lost answer can be asked for again
	return nil
}

// exchangeRefresh gets the next discharge for a refresh token.
func (g *Gateway) exchangeRefresh(r *http.Request, x *exchange, t refreshToken, text string) (issued, *failure) {
	ctx := r.Context()
	access, err := api.EncodeBundle(macaroon.Slice{t.access})
	if err != nil {
		return issued{}, unknownToken("Unknown refresh token.", true)
	}
	id, err := g.hs.VerifyAccess(ctx, access, homeserver.Request{ClientIP: x.client})
	if err != nil {
		return issued{}, g.refusal(ctx, err)
	}
	if id.Mode != caveat.ModeRotate {
		return issued{}, unknownToken("Unknown refresh token.", true)
	}
	x.identity = id
	if err := g.alive(id); err != nil {
		return issued{}, g.refusal(ctx, err)
	}
	// What this process saw of the newer epoch has to be known before the older
	// token is judged.
	g.seen.report(ctx, id.Session)
	grant, err := g.client.Discharge(ctx, api.Request{
		Access: api.Access{Macaroon: t.access}, Token: t.token, RequestID: g.requestID(text), ClientIP: x.client, UserAgent: r.UserAgent(),
	})
	g.metrics.fetched("refresh", err)
	if err != nil {
		return issued{}, g.refreshRefused(ctx, x, err)
	}
	out, err := g.hand(grant, id.Mode)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "no token can be made of a discharge", slog.Any("error", err))
		return issued{}, undecided(0).asText()
	}
	return out, nil
}

// refreshRefused says why there is no next token.
func (g *Gateway) refreshRefused(ctx context.Context, x *exchange, err error) *failure {
	f := g.refusal(ctx, err)
	if f.status != http.StatusUnauthorized {
		return f.asText()
	}
	var refused *api.RefusedError
	if errors.As(err, &refused) && refused.Final() {
		g.overAtService(ctx, x.identity, refused.SoftLogout)
	}
	return f
}

// requestID is the same for all attempts at one refresh that come through this
// process: two tabs and a lost answer get the same next token.
func (g *Gateway) requestID(text string) string {
	sum := chain.Hash(&g.nonce, []byte(text))
	return api.EncodeBase64(sum[:16])
}
