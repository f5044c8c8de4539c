package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
)

// login is what a request for a token asks for.
type login struct {
	rotate bool   // with a refresh token
	device string // on a device that may have had a token before
	how    string // label for policies
	asked  string // the homeserver's name for the questions that this answers
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
	pathLogout        = "/_matrix/client/v3/logout"
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
// earlier one, see [questions].
func (g *Gateway) prepareLogin(r *http.Request, x *exchange) *failure {
	r.Header.Del("Accept-Encoding")
	x.login.how = howOf(x.route, r)
	data, f := readRequest(r)
	if f != nil || len(strings.TrimSpace(string(data))) == 0 || x.route == routeAdminLogin {
		return f
	}
	body, err := parseObject(data)
	if err != nil {
		return badRequest(codeNotJSON, "Content not JSON.")
	}
	g.resume(x, body)
	if f := x.login.readWish(&body); f != nil {
		return f
	}
	switch device, ok := body.text(memberDevice); {
	case ok && device == "":
		body.remove(memberDevice) // Synapse takes the empty name for that of a device, which many would share
	case ok:
		x.login.device = device
	}
	if t, ok := body.text("type"); ok && x.route == routeLogin && knownLogin(t) {
		x.login.how = t
	}
	if f := g.unwrapGuest(r, x, body); f != nil {
		return f
	}
	setRequestBody(r, body.encode())
	// Before the homeserver answers, the user is as the client says.
	if err := g.lease(r.Context(), x, claimedUser(body), x.login.device); err != nil {
		return g.refusal(r.Context(), &api.UnavailableError{Err: err})
	}
	return nil
}

// claimedUser returns the user that a login or registration names, for leases;
// empty: only the homeserver knows whose token or mail address it is.
func claimedUser(body object) string {
	switch t, _ := body.text("type"); t {
	case "", "m.login.password", "m.login.application_service":
	default:
		return ""
	}
	who := body
	if identifier, err := parseObject(body.get("identifier")); err == nil {
		if who = identifier; !who.is("type", "m.id.user") {
			return ""
		}
	}
	for _, name := range []string{"user", "username"} {
		if user, ok := who.text(name); ok && strings.LastIndexByte(user, '@') <= 0 {
			return user
		}
	}
	return ""
}

// readWish reads whether a refresh token is wanted, if the body says so, and
// leaves none to be wanted of the homeserver.
func (l *login) readWish(body *object) *failure {
	said, wanted := false, false
	for _, name := range []string{memberRefresh, memberRefreshOld} {
		switch v := body.get(name); v.Kind() {
		case 't':
			said, wanted = true, true
			body.set(name, jsontext.Value("false"))
		case 'f':
			said = true
		case 0:
		default:
			return badRequest(codeInvalidParam, "refresh_token is not true or false.")
		}
	}
	if said {
		l.rotate = wanted
	}
	return nil
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
// register.
func (g *Gateway) unwrapGuest(r *http.Request, x *exchange, body object) *failure {
	token, ok := body.text(memberGuest)
	if !ok || x.route != routeRegister {
		return nil
	}
	k := kindOf(token)
	if k == kindForeign && !g.sealer.damaged(token) {
		return nil
	}
	guest := *x
	if f := g.authenticate(r, &guest, credential{token: token, kind: k}); f != nil {
		return f
	}
	if guest.narrowed {
		return forbidden("This access token was narrowed, and does not allow to change the account.")
	}
	body.set(memberGuest, quote(guest.upstream))
	return nil
}

// issued is what a client gets in place of the homeserver's token.
type issued struct {
	access, refresh string
	expires         time.Duration // 0: it is not said
}

// answerLogin replaces the token in an answer.
func (g *Gateway) answerLogin(resp *http.Response, x *exchange) error {
	data, err := readResponse(resp)
	if err != nil {
		return failed{g.loginFailed(x, "read the answer to a login", err)}
	}
	body, err := parseObject(data)
	if err != nil {
		return failed{g.loginFailed(x, "read the answer to a login", err)}
	}
	token, ok := body.text(memberAccess)
	switch {
	case body.get(memberAccess) == nil:
		return nil // registered without logging in
	case !ok || token == "":
		return failed{g.loginFailed(x, "read the answer to a login", errNotJSON)}
	}
	user, _ := body.text(memberUser)
	if x.route == routeAdminLogin {
		user = userInPath(x.path)
	}
	device, _ := body.text(memberDevice)
	in := loggedIn{user: user, device: device, token: token, userAgent: resp.Request.UserAgent()}
	if ms, err := strconv.ParseInt(string(body.get(memberExpires)), 10, 64); err == nil && ms > 0 {
		in.ends = g.cfg.Clock().Add(time.Duration(min(ms, maxUpstreamLife)) * time.Millisecond)
	}
	out, f := g.issueLeased(resp.Request.Context(), x, in)
	if f != nil {
		return failed{f}
	}
	body.set(memberAccess, quote(out.access))
	body.remove(memberRefresh)
	if out.refresh != "" {
		body.set(memberRefresh, quote(out.refresh))
	}
	switch {
	case out.expires > 0:
		body.set(memberExpires, number(out.expires.Milliseconds()))
	case in.ends.IsZero():
		body.remove(memberExpires)
	}
	g.rebase(&body, memberWellKnown)
	setResponseBody(resp, body.encode())
	return nil
}

// maxUpstreamLife is longer than any token lives, in ms, and short enough to
// reckon with.
const maxUpstreamLife = 10 * 365 * 24 * int64(time.Hour/time.Millisecond)

// loggedIn is what the homeserver answered to a login.
type loggedIn struct {
	user, device, token string
	ends                time.Time // of the homeserver's token; zero: never
	userAgent           string
}

// issueLeased begins a session while no other request touches its device. A device
// that is left without a session is logged out again.
func (g *Gateway) issueLeased(ctx context.Context, x *exchange, in loggedIn) (issued, *failure) {
	defer x.releaseLeases() // the client may take its time to read the answer
	err := g.lease(ctx, x, in.user, in.device)
	if err != nil {
		err = &api.UnavailableError{Err: err}
	} else {
		if x.login.device != "" {
			g.logins.put(deviceKey(in.user, in.device), g.cfg.Clock().Truncate(time.Millisecond))
		}
		var out issued
		if out, err = g.issue(ctx, x, in); err == nil {
			return out, nil
		}
	}
	g.abandon(ctx, x, in.token)
	return issued{}, g.loginRefused(ctx, err)
}

// issue begins a session: mints it, and has it discharged for the first time,
// so that the service knows of it and its policy has agreed.
func (g *Gateway) issue(ctx context.Context, x *exchange, in loggedIn) (issued, error) {
	session, err := caveat.NewSessionID(g.cfg.Rand)
	if err != nil {
		return issued{}, err
	}
	p := homeserver.MintParams{
		User: in.user, Device: in.device, Mode: caveat.ModeHeld, Session: session, Expires: in.ends,
		Payload: g.sealer.sealUpstream(session, in.token),
	}
	if x.login.rotate {
		p.Mode = caveat.ModeRotate
	}
	if x.login.how != "" {
		p.Labels = map[string]string{labelLogin: x.login.how}
	}
	if err := g.settleOrdersOf(ctx, in.user); err != nil {
		return issued{}, err
	}
	m, err := g.hs.Mint(p)
	if err != nil {
		return issued{}, err
	}
	grant, err := g.client.Discharge(ctx, api.Request{
		Access: api.Access{Macaroon: m.Macaroon}, ClientIP: x.client, UserAgent: in.userAgent,
	})
	g.metrics.fetched("login", err)
	if err != nil {
		return issued{}, err
	}
	out, err := g.hand(grant, p.Mode)
	if err != nil {
		return issued{}, err
	}
	g.begun(ctx, session, in)
	if p.Mode == caveat.ModeHeld {
		g.held.put(session, grant)
	}
	return out, nil
}

// hand makes tokens of a discharge.
func (g *Gateway) hand(grant api.Grant, mode caveat.Mode) (out issued, err error) {
	if (grant.Token != "") != (mode == caveat.ModeRotate) {
		return issued{}, errors.New("the discharge is not as its mode has it")
	}
	if mode == caveat.ModeHeld {
		out.access, err = heldToken(grant.Access)
		return out, err
	}
	if out.access, err = rotateToken(grant); err != nil {
		return issued{}, err
	}
	if out.refresh, err = g.sealer.encodeRefresh(refreshToken{access: grant.Access, token: grant.Token}); err != nil {
		return issued{}, err
	}
	life := max(0, grant.Expires.Sub(g.cfg.Clock()))
	out.expires = max(time.Millisecond, life-margin(life))
	return out, nil
}

// loginRefused says why a login that the homeserver agreed to failed.
func (g *Gateway) loginRefused(ctx context.Context, err error) *failure {
	var refused *api.RefusedError
	var unavailable *api.UnavailableError
	switch {
	case errors.As(err, &refused) && (refused.Reason == api.ReasonHomeserverRequired || refused.Reason == api.ReasonTokenRequired):
		return g.refused(ctx, refused)
	case errors.As(err, &refused):
		return forbidden("The login was refused: " + sentence(refused))
	case errors.As(err, &unavailable):
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "the service decided nothing about a login", slog.Any("error", err))
		return undecided(unavailable.RetryAfter)
	}
	g.cfg.Log.LogAttrs(ctx, slog.LevelError, "no session could be begun", slog.Any("error", err))
	return undecided(0)
}

func (g *Gateway) loginFailed(x *exchange, what string, err error) *failure {
	g.cfg.Log.LogAttrs(context.Background(), slog.LevelError, "cannot "+what, slog.String("path", x.path), slog.Any("error", err))
	return upstreamFailed()
}

// abandon logs out at the homeserver what no client will ever use: a device
// that is left behind would go on receiving keys. But not a device that the
// client named: it may be one that it has had for long, with keys that would be
// lost, and it will come back to it.
func (g *Gateway) abandon(ctx context.Context, x *exchange, token string) {
	if x.login.device != "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.cfg.patience.upstream)
	defer cancel()
	if err := g.logoutUpstream(ctx, token); err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelError, "a device is left behind at the homeserver", slog.Any("error", err))
	}
}

// userInPath is the user whom an administrator logs in.
func userInPath(path string) string {
	rest := strings.TrimPrefix(path, adminPrefix+"v1/users/")
	user, err := url.PathUnescape(strings.TrimSuffix(rest, "/login"))
	if err != nil {
		return ""
	}
	return user
}
