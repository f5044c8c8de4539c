package gateway

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// Legacy is the treatment of tokens that the homeserver issued before the gateway came.
type Legacy struct {
	// Until is when they end; the zero value is never.
	Until time.Time
	// Reject ends them at once.
	Reject bool
	// RejectAfterUpgrade ends those of users who have logged in through the gateway. The
	// homeserver is requested for the owner of a token, which is cached.
	RejectAfterUpgrade bool
}

// whoamiLife is for how long it is remembered whose a token is.
const whoamiLife = 5 * time.Minute

// owner is whose a token of the homeserver's is.
type owner struct {
	user  string // empty: nobody's whom it would name
	until time.Time
}

// admitForeign decides about a token that is not the gateway's. Those of
// application services are such too, and pass if they are listed.
func (g *Gateway) admitForeign(r *http.Request, x *exchange, c token.Credential) *reply.Refusal {
	l, ctx := g.live().Legacy, r.Context()
	if !l.bounds() {
		return nil
	}
	sum := sha256.Sum256([]byte(c.Text))
	if slices.Contains(g.live().ForeignTokens, sum) {
		return nil
	}
	if g.legacyOver() {
		return reply.UnknownToken("This access token is from before, and not accepted any more. Log in again.", true)
	}
	if !l.RejectAfterUpgrade {
		return nil
	}
	user, err := g.ownerOf(ctx, sum, c.Text, x.origin(r))
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "owner of a legacy token is unknown", slog.Any("error", err))
		return reply.Undecided(0)
	}
	if user != "" && g.outbox.Store.KnowsUser(user) {
		return reply.UnknownToken("You have logged in anew elsewhere. Log in again here too.", true)
	}
	return nil
}

// bounds reports whether tokens from before are ever refused.
func (l Legacy) bounds() bool { return l.Reject || !l.Until.IsZero() || l.RejectAfterUpgrade }

// legacyOver reports whether tokens from before are refused now.
func (g *Gateway) legacyOver() bool {
	l := g.live().Legacy
	return l.Reject || !l.Until.IsZero() && !g.cfg.clock().Before(l.Until)
}

// ownerOf asks the homeserver whose a token is, unless it was asked lately.
func (g *Gateway) ownerOf(ctx context.Context, sum [sha256.Size]byte, token string, who upstream.Origin) (string, error) {
	now := g.cfg.clock()
	if o, ok := g.owners.Get(sum); ok && now.Before(o.until) {
		return o.user, nil
	}
	status, body, err := g.homeserver.Get(ctx, upstream.PathWhoami, token, who)
	if err != nil {
		return "", err
	}
	o := owner{until: now.Add(whoamiLife)}
	switch status {
	case http.StatusOK:
		o.user, _ = body.Text(memberUser)
	case http.StatusUnauthorized, http.StatusForbidden:
		// The homeserver will say so itself.
	default:
		return "", fmt.Errorf("%w: status %d", upstream.ErrUndecided, status)
	}
	g.owners.Put(sum, o)
	return o.user, nil
}

// refreshForeign passes on a refresh with a token of the homeserver's own.
func (g *Gateway) refreshForeign(w http.ResponseWriter, r *http.Request, _ *exchange) *reply.Refusal {
	if g.legacyOver() {
		return reply.UnknownToken("This refresh token is from before, and not accepted any more. Log in again.", true)
	}
	r.Header.Del("Accept-Encoding")
	g.proxy.ServeHTTP(w, r)
	return nil
}

// answerRefresh looks at an answer to a refresh that was passed on. A homeserver
// without refresh tokens has no such route, and the token is one that is not known.
// Where users who have had a token of the gateway's get nothing for tokens from
// before, the answer is withheld from them: only it tells whose the refresh token was.
func (g *Gateway) answerRefresh(resp *http.Response, x *exchange) error {
	switch {
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusMethodNotAllowed:
	case resp.StatusCode == http.StatusOK && g.live().Legacy.RejectAfterUpgrade:
	default:
		return nil
	}
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return err
	}
	body, err := jsonbody.Parse(data)
	switch {
	case resp.StatusCode != http.StatusOK && err == nil && body.Is("errcode", matrix.CodeUnrecognized):
		return failed{reply.UnknownToken("Unknown refresh token.", true)}
	case resp.StatusCode != http.StatusOK:
		return nil
	case err != nil:
		return err
	}
	token, ok := body.Text(memberAccess)
	if !ok {
		return jsonbody.ErrNotJSON
	}
	ctx := resp.Request.Context()
	user, err := g.ownerOf(ctx, sha256.Sum256([]byte(token)), token, x.origin(resp.Request))
	switch {
	case err != nil:
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "owner of a legacy refresh token is unknown", slog.Any("error", err))
		return failed{reply.Undecided(0).Text()}
	case user != "" && g.outbox.Store.KnowsUser(user):
		return failed{reply.UnknownToken("You have logged in anew elsewhere. Log in again here too.", true)}
	}
	return nil
}
