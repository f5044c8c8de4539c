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

// Legacy controls tokens that the homeserver issued before the gateway was installed.
type Legacy struct {
	// Until is the time from which they are refused; zero: never.
	Until time.Time
	// Reject refuses them at once.
	Reject bool
	// RejectAfterUpgrade refuses those of users who have logged in through the gateway.
	// The homeserver names the owner of a token, which is cached.
	RejectAfterUpgrade bool
}

// whoamiLife is how long the owner of a token is cached.
const whoamiLife = 5 * time.Minute

// owner is the owner of a homeserver's token.
type owner struct {
	user  string // empty: the homeserver rejects the token
	until time.Time
}

// admitForeign decides about a token that is not the gateway's: a legacy token, or one
// of an application service, which is accepted if it is listed.
func (g *Gateway) admitForeign(r *http.Request, x *exchange, c token.Credential) *reply.Refusal {
	l := g.live().Legacy
	if !l.restricts() {
		return nil
	}
	sum := sha256.Sum256([]byte(c.Text))
	if slices.Contains(g.live().ForeignTokens, sum) {
		return nil
	}
	if g.legacyRejected() {
		return reply.UnknownToken("This access token was issued before the gateway, and is no longer accepted. Log in again.", true)
	}
	if !l.RejectAfterUpgrade {
		return nil
	}
	return g.refuseUpgraded(r.Context(), sum, c.Text, x.origin(r))
}

// refuseUpgraded refuses a legacy token of a user who has logged in through the gateway.
func (g *Gateway) refuseUpgraded(ctx context.Context, sum [sha256.Size]byte, token string, who upstream.Origin) *reply.Refusal {
	user, err := g.ownerOf(ctx, sum, token, who)
	switch {
	case err != nil:
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "cannot determine the owner of a legacy token", slog.Any("error", err))
		return reply.Undecided(0)
	case user != "" && g.outbox.Store.KnowsUser(user):
		return reply.UnknownToken("This token was replaced by a login elsewhere. Log in again.", true)
	}
	return nil
}

// restricts reports whether legacy tokens are ever refused.
func (l Legacy) restricts() bool { return l.Reject || !l.Until.IsZero() || l.RejectAfterUpgrade }

// legacyRejected reports whether all legacy tokens are refused now.
func (g *Gateway) legacyRejected() bool {
	l := g.live().Legacy
	return l.Reject || !l.Until.IsZero() && !g.cfg.clock().Before(l.Until)
}

// ownerOf returns the user of a homeserver's token, cached or from whoami.
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
		// The homeserver will reject the request itself.
	default:
		return "", fmt.Errorf("%w: status %d", upstream.ErrUndecided, status)
	}
	g.owners.Put(sum, o)
	return o.user, nil
}

// answerRefresh checks the response to a forwarded refresh. A homeserver without
// refresh tokens has no such route, so the token is unknown. With RejectAfterUpgrade,
// the response names the owner of the refresh token and is withheld from users of the
// gateway.
func (g *Gateway) answerRefresh(resp *http.Response, x *exchange) error {
	unknown := resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed
	if !unknown && (resp.StatusCode != http.StatusOK || !g.live().Legacy.RejectAfterUpgrade) {
		return nil
	}
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return err
	}
	body, _ := jsonbody.Parse(data) // nil: not an object
	token, ok := body.Text(memberAccess)
	switch {
	case unknown && body.Is("errcode", matrix.CodeUnrecognized):
		return refusalError{reply.UnknownToken("Unknown refresh token.", true)}
	case unknown:
		return nil
	case !ok:
		return jsonbody.ErrNotJSON
	}
	f := g.refuseUpgraded(resp.Request.Context(), sha256.Sum256([]byte(token)), token, x.origin(resp.Request))
	switch {
	case f == nil:
		return nil
	case f.Status != http.StatusUnauthorized:
		f = f.Text()
	}
	return refusalError{f}
}
