package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/uia"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// login holds the parameters of a request for a token.
type login struct {
	rotate bool   // a refresh token is requested
	device string // named by the client, who may have used it before
	method string // how the client logs in, a label for policies
}

// Members of login bodies.
const (
	memberAccess     = "access_token"
	memberRefresh    = "refresh_token"
	memberRefreshOld = "org.matrix.msc2918.refresh_token"
	memberExpires    = "expires_in_ms"
	memberGuest      = "guest_access_token"
	memberUser       = "user_id"
	memberDevice     = "device_id"
	memberWellKnown  = "well_known"
)

// maxLoginType bounds the login type in the label of a session, in bytes.
const maxLoginType = 64

// prepareLogin reads the parameters of a login, waits for the service, and takes the
// device's lease. It removes the wish for a refresh token: the homeserver's own token
// has to stay the same for the whole session. It adds no member: in user-interactive
// authentication an absent one has the value of an earlier request, see [uia].
func (g *Gateway) prepareLogin(r *http.Request, x *exchange) *reply.Refusal {
	r.Header.Del("Accept-Encoding")
	x.login.method = loginMethod(x.route, r)
	data, f := g.readRequest(r)
	if f != nil {
		return f
	}
	w := g.waiterFor(x, nil)
	w.Open = true
	if err := g.service.Ready(r.Context(), w); err != nil {
		return g.refusal(r.Context(), err)
	}
	if len(bytes.TrimSpace(data)) == 0 || x.route == matrix.AdminLogin {
		return nil
	}
	body, err := g.parseBody(data)
	if err != nil {
		return reply.BadBody(data)
	}
	if usesUIA(x.route) {
		g.resumeUIA(x, body)
	}
	if x.uia.own, f = loginParams(&body); f != nil {
		return f
	}
	wanted := x.uia.own.Over(x.uia.before)
	x.login.rotate, x.login.device = wanted.Refresh == uia.Yes, wanted.Device
	if t, _ := body.Text("type"); x.route == matrix.Login && len(t) <= maxLoginType &&
		(strings.HasPrefix(t, "m.login.") || t == "org.matrix.login.jwt") {
		x.login.method = t
	}
	if f := g.unwrapGuest(r, x, body); f != nil {
		return f
	}
	jsonbody.SetRequest(r, body.Encode())
	// The lease is by the name that the client gives, until the homeserver's response.
	claim := admission.Claim{Open: true, Peer: g.limitKey(x.client)}
	if err := g.lease(r.Context(), x, claimedUser(body), x.login.device, claim); err != nil {
		return g.refusal(r.Context(), err)
	}
	return nil
}

// claimedUser returns the user that a login or registration names, for leases; empty if
// only the homeserver can resolve it, as from a token or a mail address.
func claimedUser(body jsonbody.Object) string {
	switch t, _ := body.Text("type"); t {
	case "", "m.login.password", "m.login.application_service":
	default:
		return ""
	}
	who := body
	if identifier, err := jsonbody.Parse(body.Get("identifier")); err == nil {
		if who = identifier; !who.Is("type", "m.id.user") {
			return ""
		}
	}
	for _, name := range []string{"user", "username"} {
		if user, ok := who.Text(name); ok && strings.LastIndexByte(user, '@') <= 0 {
			return user
		}
	}
	return ""
}

// loginParams reads the device of a login or registration and whether a refresh token
// is requested, and sets that member to false.
func loginParams(body *jsonbody.Object) (a uia.Params, f *reply.Refusal) {
	for _, name := range []string{memberRefresh, memberRefreshOld} {
		v := body.Get(name)
		switch c := uia.ChoiceOf(v); {
		case v == nil:
		case c == uia.Absent:
			return uia.Params{}, reply.BadRequest(matrix.CodeUnknown, "`refresh_token` should be true or false.")
		case c == uia.Yes:
			a.Refresh = uia.Yes
			body.Set(name, jsontext.Value("false"))
		case a.Refresh == uia.Absent:
			a.Refresh = uia.No
		}
	}
	switch device, ok := body.Text(memberDevice); {
	case ok && device == "":
		body.Remove(memberDevice) // Synapse takes "" for a device id, which many clients would share
	case ok && caveat.CheckDevice(device) == nil:
		a.Device = device
	case ok:
		return uia.Params{}, reply.BadRequest(matrix.CodeInvalidParam, "device_id cannot be longer than 512 characters.")
	}
	return a, nil
}

// loginMethod returns the label of a route whose requests have no login type.
func loginMethod(r matrix.Effect, req *http.Request) string {
	switch {
	case r == matrix.AdminLogin || r == matrix.AdminRegister:
		return "admin"
	case r == matrix.Register && req.URL.Query().Get("kind") == "guest":
		return "guest"
	case r == matrix.Register:
		return "register"
	}
	return ""
}

// unwrapGuest replaces the guest's access token in a registration, under the rules for
// access tokens.
func (g *Gateway) unwrapGuest(r *http.Request, x *exchange, body jsonbody.Object) *reply.Refusal {
	text, ok := body.Text(memberGuest)
	if !ok || text == "" || x.route != matrix.Register {
		return nil
	}
	c := token.Credential{Text: text, Kind: token.KindOf(text)}
	if c.Kind == token.Foreign && !g.sealer.WasOurs(text) {
		return g.admitForeign(r, x, c)
	}
	f := g.authenticate(r, x, c)
	upstream, narrowed := x.upstream, x.narrowed
	x.identity, x.upstream, x.narrowed = homeserver.Identity{}, "", false // the registration is not a request of the guest's session
	switch {
	case f != nil:
		return f
	case narrowed:
		return reply.Forbidden("This access token was narrowed, and does not allow to change the account.")
	}
	body.Set(memberGuest, jsonbody.Quote(upstream))
	return nil
}

// issued holds the tokens that replace the homeserver's.
type issued struct {
	access, refresh string
	expires         time.Duration // 0: not in the response
}

// readLogin parses the response to a login or registration. Only a success may contain
// a token; any other response with one, and an ambiguous one, is an error. The object
// is nil if there is no token.
func (g *Gateway) readLogin(resp *http.Response) (jsonbody.Object, error) {
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return nil, err
	}
	success := resp.StatusCode/100 == 2
	body, err := jsonbody.Parse(data)
	if err != nil {
		if text := bytes.TrimLeft(data, " \t\r\n"); !success && (len(text) == 0 || text[0] != '{') {
			return nil, nil // an error page of a proxy before the homeserver
		}
		return nil, err
	}
	token, ok := body.Text(memberAccess)
	switch hasAccess, hasRefresh := body.Get(memberAccess) != nil, body.Get(memberRefresh) != nil; {
	case !hasAccess && !hasRefresh:
		return nil, nil // refused, or registered without a login
	case !success || !ok || token == "":
		return nil, errors.New("token is unexpected or not a string")
	}
	return body, nil
}

// answerLogin replaces the token in the response to a login.
func (g *Gateway) answerLogin(resp *http.Response, x *exchange) error {
	body, err := g.readLogin(resp)
	if err != nil {
		g.cfg.Log.LogAttrs(resp.Request.Context(), slog.LevelError, "cannot read the response to a login", slog.String("path", x.path), slog.Any("error", err))
		return refusalError{reply.UpstreamFailed()}
	}
	if body == nil {
		return nil
	}
	in := upstreamLogin{session: caveat.NewSessionID(), userAgent: resp.Request.UserAgent()}
	in.token, _ = body.Text(memberAccess)
	in.user, _ = body.Text(memberUser)
	in.device, _ = body.Text(memberDevice)
	if x.route == matrix.AdminLogin {
		in.user = x.match.ID("user")
	}
	if ms, err := strconv.ParseInt(string(body.Get(memberExpires)), 10, 64); err == nil && ms > 0 {
		life := time.Duration(min(ms, maxLifetime)) * time.Millisecond
		in.ends = g.cfg.clock().Add(life)
		g.reportLifetime(resp.Request.Context(), x, life)
	}
	out, f := g.issueLeased(resp.Request.Context(), x, in)
	if f != nil {
		return refusalError{f}
	}
	body.Set(memberAccess, jsonbody.Quote(out.access))
	body.Remove(memberRefresh)
	if out.refresh != "" {
		body.Set(memberRefresh, jsonbody.Quote(out.refresh))
	}
	switch {
	case out.expires > 0:
		body.Set(memberExpires, jsonbody.Number(out.expires.Milliseconds()))
	case in.ends.IsZero():
		body.Remove(memberExpires)
	}
	g.rebase(&body, memberWellKnown)
	jsonbody.SetResponse(resp, body.Encode())
	return nil
}

// reportLifetime counts a login in mode rotate whose session ends with the homeserver's
// token, and logs the first one.
func (g *Gateway) reportLifetime(ctx context.Context, x *exchange, life time.Duration) {
	if !x.login.rotate {
		return
	}
	g.metrics.ShortLogins.Inc()
	g.warnLifetime.Do(func() {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "homeserver's tokens expire and end the sessions of clients that refresh: "+
			"remove nonrefreshable_access_token_lifetime, and an unintended session_lifetime, from its configuration",
			slog.Duration("lifetime", life))
	})
}

// maxLifetime bounds a token's lifetime in ms, so that arithmetic does not overflow.
const maxLifetime = 10 * 365 * 24 * int64(time.Hour/time.Millisecond)

// upstreamLogin is the homeserver's response to a login.
type upstreamLogin struct {
	user, device, token string
	session             caveat.SessionID // the new session
	ends                time.Time        // expiry of the homeserver's token; zero: none
	userAgent           string
}

// issueLeased begins a session under the lease of its device. After a failure it
// abandons the login.
func (g *Gateway) issueLeased(ctx context.Context, x *exchange, in upstreamLogin) (issued, *reply.Refusal) {
	defer x.releaseLeases() // a slow client must not hold the lease
	err := g.lease(ctx, x, in.user, in.device, admission.Claim{})
	if err == nil {
		if x.login.device != "" {
			g.outbox.NoteLogin(in.user, in.device)
		}
		x.waitUntil = time.Time{} // the login has a wait of its own
		var out issued
		if out, err = g.issue(ctx, x, in); err == nil {
			return out, nil
		}
	}
	g.abandon(ctx, x, in, err)
	return issued{}, g.loginRefused(ctx, err)
}

// issue mints a session and fetches its first discharge, by which the service registers
// it and its policy decides.
func (g *Gateway) issue(ctx context.Context, x *exchange, in upstreamLogin) (issued, error) {
	p := homeserver.MintParams{
		User: in.user, Device: in.device, Mode: caveat.ModeHeld, Session: in.session, Expires: in.ends,
		Payload: g.sealer.SealUpstream(in.session, in.token),
	}
	if x.login.rotate {
		p.Mode = caveat.ModeRotate
	}
	if x.login.method != "" {
		p.Labels = map[string]string{"login": x.login.method}
	}
	grant, err := g.activate(ctx, x, p, in)
	if err != nil {
		return issued{}, err
	}
	out, err := g.encodeGrant(grant, p.Mode)
	if err != nil {
		return issued{}, err
	}
	g.outbox.Begin(ctx, in.session, in.user, in.device, in.token)
	if p.Mode == caveat.ModeHeld {
		g.service.Discharges.Put(in.session, grant)
	}
	return out, nil
}

// encodeGrant encodes the tokens of a discharge.
func (g *Gateway) encodeGrant(grant client.Grant, mode caveat.Mode) (out issued, err error) {
	if (grant.Token != "") != (mode == caveat.ModeRotate) {
		return issued{}, errors.New("refresh token does not match the session's mode")
	}
	if mode == caveat.ModeHeld {
		out.access, err = token.EncodeHeld(grant.Access)
		return out, err
	}
	if out.access, err = token.EncodeRotate(grant); err != nil {
		return issued{}, err
	}
	if out.refresh, err = g.sealer.EncodeRefresh(token.RefreshToken{Access: grant.Access, Token: grant.Token}); err != nil {
		return issued{}, err
	}
	life := grant.Remaining()
	out.expires = max(time.Millisecond, life-service.Margin(life))
	return out, nil
}

// loginRefused maps the failure of a login that the homeserver accepted to a response.
func (g *Gateway) loginRefused(ctx context.Context, err error) *reply.Refusal {
	var refused *client.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Reason != wire.ReasonHomeserverRequired && refused.Reason != wire.ReasonTokenRequired:
		return reply.Forbidden("The login was refused: " + messageOf(refused))
	case refused != nil, errors.Is(err, client.ErrUnavailable):
		return g.refusal(ctx, err)
	}
	g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot begin session", slog.Any("error", err))
	return reply.Undecided(0)
}
