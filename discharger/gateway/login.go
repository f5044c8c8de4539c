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
	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/uia"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// login is what a request for a token asks for.
type login struct {
	rotate bool   // with a refresh token
	device string // on a device that may have had a token before
	how    string // label for policies
}

// Members of bodies that carry tokens.
const (
	memberAccess      = "access_token"
	memberRefresh     = "refresh_token"
	memberRefreshOld  = "org.matrix.msc2918.refresh_token"
	memberExpires     = "expires_in_ms"
	memberGuest       = "guest_access_token"
	memberUser        = "user_id"
	memberDevice      = "device_id"
	memberLastSeen    = "last_seen_ts"
	memberWellKnown   = "well_known"
	labelLogin        = "login"
	maxLoginType      = 64
	loginTypePrefix   = "m.login."
	loginTypeJWT      = "org.matrix.login.jwt"
	howRegistration   = "register"
	howGuest          = "guest"
	howAdministration = "admin"
)

// prepareLogin reads what the client asks for, and does not pass on that it
// wants a refresh token: the gateway makes that, and the homeserver's own token
// has to stay the same for the whole session. Nothing is added to a body: one
// with nothing but the answer to a question takes its other members from an
// earlier one, see [uia].
func (g *Gateway) prepareLogin(r *http.Request, x *exchange) *reply.Refusal {
	r.Header.Del("Accept-Encoding")
	x.login.how = howOf(x.route, r)
	data, f := g.readRequest(r)
	if f == nil {
		f = g.askFirst(r.Context(), x)
	}
	if f != nil || len(strings.TrimSpace(string(data))) == 0 || x.route == routeAdminLogin {
		return f
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
	if t, ok := body.Text("type"); ok && x.route == routeLogin && knownLogin(t) {
		x.login.how = t
	}
	if f := g.unwrapGuest(r, x, body); f != nil {
		return f
	}
	jsonbody.SetRequest(r, body.Encode())
	// Before the homeserver answers, the user is as the client says.
	if err := g.leaseOpen(r.Context(), x, claimedUser(body), x.login.device); err != nil {
		return g.refusal(r.Context(), &client.UnavailableError{Err: err})
	}
	return nil
}

// claimedUser returns the user that a login or registration names, for leases;
// empty: only the homeserver knows whose token or mail address it is.
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
// is requested, and has none requested of the homeserver.
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
		body.Remove(memberDevice) // Synapse takes the empty name for that of a device, which many would share
	case ok && caveat.CheckDevice(device) == nil:
		a.Device = device
	case ok:
		return uia.Params{}, reply.BadRequest(matrix.CodeInvalidParam, "device_id cannot be longer than 512 characters.")
	}
	return a, nil
}

func knownLogin(t string) bool {
	return len(t) <= maxLoginType && (strings.HasPrefix(t, loginTypePrefix) || t == loginTypeJWT)
}

func howOf(r route, req *http.Request) string {
	switch {
	case r == routeAdminLogin || r == routeAdminRegister:
		return howAdministration
	case r == routeRegister && req.URL.Query().Get("kind") == "guest":
		return howGuest
	case r == routeRegister:
		return howRegistration
	}
	return ""
}

// unwrapGuest replaces the token by which a guest proves who they are when they
// register. It is refused where it would be as an access token.
func (g *Gateway) unwrapGuest(r *http.Request, x *exchange, body jsonbody.Object) *reply.Refusal {
	text, ok := body.Text(memberGuest)
	if !ok || text == "" || x.route != routeRegister {
		return nil
	}
	c := token.Credential{Text: text, Kind: token.KindOf(text)}
	if c.Kind == token.Foreign && !g.sealer.WasOurs(text) {
		return g.admitForeign(r, x, c)
	}
	f := g.authenticate(r, x, c)
	upstream, narrowed := x.upstream, x.narrowed
	x.identity, x.upstream, x.narrowed = homeserver.Identity{}, "", false // the registration is not the guest's request
	switch {
	case f != nil:
		return f
	case narrowed:
		return reply.Forbidden("This access token was narrowed, and does not allow to change the account.")
	}
	body.Set(memberGuest, jsonbody.Quote(upstream))
	return nil
}

// issued is what a client gets in place of the homeserver's token.
type issued struct {
	access, refresh string
	expires         time.Duration // 0: it is not said
}

// readLogin reads the answer to a login or registration. A token is in one of
// success; with any other, and where it cannot be told, nothing is passed on. The
// object is nil if there is nothing to be replaced.
func (g *Gateway) readLogin(resp *http.Response) (jsonbody.Object, error) {
	data, err := jsonbody.ReadResponse(resp)
	if err != nil {
		return nil, err
	}
	success := resp.StatusCode/100 == 2
	body, err := jsonbody.Parse(data)
	if err != nil {
		if text := bytes.TrimLeft(data, " \t\r\n"); !success && (len(text) == 0 || text[0] != '{') {
			return nil, nil // an error page of something between here and the homeserver
		}
		return nil, err
	}
	token, ok := body.Text(memberAccess)
	switch hasAccess, hasRefresh := body.Get(memberAccess) != nil, body.Get(memberRefresh) != nil; {
	case !hasAccess && !hasRefresh:
		return nil, nil // refused, or registered without logging in
	case !success || !ok || token == "":
		return nil, errStrayToken
	}
	return body, nil
}

var errStrayToken = errors.New("a token is in an answer that should have none, or is not a text")

// answerLogin replaces the token in an answer.
func (g *Gateway) answerLogin(resp *http.Response, x *exchange) error {
	body, err := g.readLogin(resp)
	if err != nil {
		return failed{g.loginFailed(x, "read the answer to a login", err)}
	}
	if body == nil {
		return nil
	}
	token, _ := body.Text(memberAccess)
	user, _ := body.Text(memberUser)
	if x.route == routeAdminLogin {
		user = x.match.ID("user")
	}
	device, _ := body.Text(memberDevice)
	in := loggedIn{user: user, device: device, token: token, userAgent: resp.Request.UserAgent()}
	in.session = caveat.NewSessionID()
	if ms, err := strconv.ParseInt(string(body.Get(memberExpires)), 10, 64); err == nil && ms > 0 {
		life := time.Duration(min(ms, maxUpstreamLife)) * time.Millisecond
		in.ends = g.cfg.clock().Add(life)
		g.reportLifetime(resp.Request.Context(), x, life)
	}
	out, f := g.issueLeased(resp.Request.Context(), x, in)
	if f != nil {
		return failed{f}
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

// reportLifetime counts a login of a client that refreshes whose session ends with the
// homeserver's token, and logs the first one.
func (g *Gateway) reportLifetime(ctx context.Context, x *exchange, life time.Duration) {
	if !x.login.rotate {
		return
	}
	g.metrics.ShortLogins.Inc()
	g.shortLogin.Do(func() {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "homeserver's tokens expire and end the sessions of clients that refresh: "+
			"remove nonrefreshable_access_token_lifetime, and session_lifetime if that is not meant, from its configuration",
			slog.Duration("lifetime", life))
	})
}

// maxUpstreamLife is longer than any token lives, in ms, and short enough to
// reckon with.
const maxUpstreamLife = 10 * 365 * 24 * int64(time.Hour/time.Millisecond)

// loggedIn is what the homeserver answered to a login.
type loggedIn struct {
	user, device, token string
	session             caveat.SessionID // that is to begin
	ends                time.Time        // of the homeserver's token; zero: never
	userAgent           string
}

// issueLeased begins a session while no other request touches its device. A device
// that is left without a session is logged out again.
func (g *Gateway) issueLeased(ctx context.Context, x *exchange, in loggedIn) (issued, *reply.Refusal) {
	defer x.releaseLeases() // the client may take its time to read the answer
	err := g.lease(ctx, x, in.user, in.device)
	if err != nil {
		err = &client.UnavailableError{Err: err}
	} else {
		if x.login.device != "" {
			g.outbox.NoteLogin(in.user, in.device)
		}
		x.waitUntil = time.Time{} // what it waited for before does not count
		var out issued
		if out, err = g.issue(ctx, x, in); err == nil {
			return out, nil
		}
	}
	g.abandon(ctx, x, in, err)
	return issued{}, g.loginRefused(ctx, err)
}

// issue begins a session: mints it, and has it discharged for the first time,
// so that the service knows of it and its policy has agreed.
func (g *Gateway) issue(ctx context.Context, x *exchange, in loggedIn) (issued, error) {
	p := homeserver.MintParams{
		User: in.user, Device: in.device, Mode: caveat.ModeHeld, Session: in.session, Expires: in.ends,
		Payload: g.sealer.SealUpstream(in.session, in.token),
	}
	if x.login.rotate {
		p.Mode = caveat.ModeRotate
	}
	if x.login.how != "" {
		p.Labels = map[string]string{labelLogin: x.login.how}
	}
	grant, err := g.activate(ctx, x, p, in)
	if err != nil {
		return issued{}, err
	}
	out, err := g.hand(grant, p.Mode)
	if err != nil {
		return issued{}, err
	}
	g.outbox.Begin(ctx, in.session, in.user, in.device, in.token)
	if p.Mode == caveat.ModeHeld {
		g.service.Discharges.Put(in.session, grant)
	}
	return out, nil
}

// hand makes tokens of a discharge.
func (g *Gateway) hand(grant client.Grant, mode caveat.Mode) (out issued, err error) {
	if (grant.Token != "") != (mode == caveat.ModeRotate) {
		return issued{}, errors.New("the discharge is not as its mode has it")
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

// loginRefused says why a login that the homeserver agreed to failed.
func (g *Gateway) loginRefused(ctx context.Context, err error) *reply.Refusal {
	var refused *client.RefusedError
	var unavailable *client.UnavailableError
	switch {
	case errors.As(err, &refused) && (refused.Reason == wire.ReasonHomeserverRequired || refused.Reason == wire.ReasonTokenRequired):
		return g.refused(ctx, refused)
	case errors.As(err, &refused):
		return reply.Forbidden("The login was refused: " + sentence(refused))
	case errors.As(err, &unavailable):
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "service is unavailable, login answered 503", slog.Any("error", err))
		return reply.Undecided(unavailable.RetryAfter)
	}
	g.cfg.Log.LogAttrs(ctx, slog.LevelError, "cannot begin session", slog.Any("error", err))
	return reply.Undecided(0)
}

func (g *Gateway) loginFailed(x *exchange, what string, err error) *reply.Refusal {
	g.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "cannot "+what, slog.String("path", x.path), slog.Any("error", err))
	return reply.UpstreamFailed()
}
