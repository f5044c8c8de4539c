//go:build interop

package interop

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// target is a web service built on the bakery: a client without macaroons receives
// an access macaroon to be discharged, and repeats its request. All clients share one
// session.
type target struct {
	*httptest.Server
	stock *stock
	login *login
	// stale moves the next request to a time when everything issued has expired.
	stale atomic.Bool
}

const (
	pathAccount = "/account"
	pathExpire  = "/expire"
	welcome     = "welcome"
)

func newTarget(t *testing.T, s *stock, user string) *target {
	t.Helper()
	tg := &target{stock: s, login: s.login(t, user, caveat.V3, caveat.ModeOpen)}
	mux := http.NewServeMux()
	mux.HandleFunc(pathAccount, tg.account)
	mux.HandleFunc(pathExpire, func(http.ResponseWriter, *http.Request) { tg.stale.Store(true) })
	tg.Server = httptest.NewServer(mux)
	t.Cleanup(tg.Close)
	return tg
}

func (tg *target) account(w http.ResponseWriter, req *http.Request) {
	ctx := httpbakery.ContextWithRequest(req.Context(), req)
	now := time.Now()
	if tg.stale.Swap(false) {
		now = now.Add(24 * time.Hour)
	}
	checking := checkers.ContextWithClock(ctx, clock(now))
	_, refusal := tg.stock.bakery.Checker.Auth(httpbakery.RequestMacaroons(req)...).Allow(checking, access)
	if refusal == nil {
		io.WriteString(w, welcome)
		return
	}
	m, err := tg.stock.mint(ctx, httpbakery.RequestVersion(req), tg.login.condition)
	if err != nil {
		httpbakery.WriteError(ctx, w, fmt.Errorf("mint: %w", err))
		return
	}
	httpbakery.WriteError(ctx, w, httpbakery.NewDischargeRequiredError(httpbakery.DischargeRequiredErrorParams{
		Macaroon: m, OriginalError: refusal, CookieNameSuffix: "account", Request: req,
	}))
}

// testGoTarget checks that the stock client goes from the 401 of the target to the
// service, and back with the macaroons in its cookie jar.
func testGoTarget(t *testing.T, w *world) {
	tg := newTarget(t, w.stock, "@go-target:stock")
	others := w.bystanders(t, w.stock, tg.login)
	client := httpbakery.NewClient()
	visit := func() (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, tg.URL+pathAccount, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	for range 3 { // each time with a new discharge
		for range 2 { // with a new discharge, and with the one in the jar
			if body, err := visit(); err != nil || body != welcome {
				t.Fatalf("got %q, %v", body, err)
			}
		}
		tg.stale.Store(true)
	}
	if a := w.post(t, wire.PathLogout, tg.login.params(t)); a.status != http.StatusOK {
		t.Fatalf("logout: %s", a)
	}
	_, err := visit()
	refusedByBakery(t, err, httpbakery.ErrPermissionDenied)
	others.live(t, w)
}

// testGoEverywhere ends all sessions of a user with one of them.
func testGoEverywhere(t *testing.T, w *world) {
	const user = "@everywhere:stock"
	client, tokens := newGoClient(caveat.ModeRotate)
	phone := w.stock.login(t, user, caveat.V3, caveat.ModeRotate)
	laptop := w.stock.login(t, user, caveat.V2, caveat.ModeOpen)
	unused := w.stock.login(t, user, caveat.V1, caveat.ModeOpen)
	others := bystanders{
		w.stock.login(t, "@other:stock", caveat.V2, caveat.ModeOpen),
		w.other.login(t, user, caveat.V2, caveat.ModeOpen),
	}
	others.live(t, w)
	for range 3 {
		if _, err := client.DischargeAll(t.Context(), phone.macaroon(t)); err != nil {
			t.Fatal(err)
		}
		w.discharge(t, laptop, "")
	}
	everywhere := func(l *login, token string) answer {
		t.Helper()
		params := withToken(l.params(t), token)
		params.Set(wire.ParamScope, string(wire.ScopeUser))
		return w.post(t, wire.PathLogout, params)
	}
	// A caveat alone ends no other session.
	for l, reason := range map[*login]string{laptop: wire.ReasonHomeserverRequired, phone: wire.ReasonTokenRequired} {
		if a := everywhere(l, ""); a.status != http.StatusUnauthorized || a.refusal(t).Info.Reason != reason {
			t.Errorf("with a caveat alone: %s", a)
		}
	}
	if a := everywhere(phone, tokens.token); a.status != http.StatusOK {
		t.Fatalf("logout: %s", a)
	}
	client = httpbakery.NewClient()
	for _, l := range []*login{phone, laptop, unused} {
		_, err := client.DischargeAll(t.Context(), l.macaroon(t))
		refusedByBakery(t, err, httpbakery.ErrPermissionDenied)
	}
	others.live(t, w)
	again := w.stock.login(t, user, caveat.V3, caveat.ModeOpen)
	if _, err := client.DischargeAll(t.Context(), again.macaroon(t)); err != nil {
		t.Errorf("the user cannot log in again: %v", err)
	}
}

// testRestart stops the service and starts it again on the same data.
func testRestart(t *testing.T, w *world) {
	client, tokens := newGoClient(caveat.ModeRotate)
	rotating := w.stock.login(t, "@rotating:stock", caveat.V3, caveat.ModeRotate)
	ended := w.stock.login(t, "@ended:stock", caveat.V2, caveat.ModeOpen)
	others := w.bystanders(t, w.stock, ended)
	discharge := func() {
		t.Helper()
		if _, err := client.DischargeAll(t.Context(), rotating.macaroon(t)); err != nil {
			t.Fatal(err)
		}
	}
	discharge()
	w.discharge(t, ended, "")
	if a := w.post(t, wire.PathLogout, ended.params(t)); a.status != http.StatusOK {
		t.Fatalf("logout: %s", a)
	}
	first := tokens.token
	for range 2 {
		if err := w.service.process.stop(t); err != nil {
			t.Fatalf("the service ends with %v:\n%s", err, w.service.process.output(t))
		}
		w.service.start(t)
		w.refused(t, ended, "", wire.ReasonSessionEnded)
		discharge()
		others.live(t, w)
	}
	discharge()
	// A copy from the party that used the session last is refused, and the session
	// lives; from another party it ends the session for both.
	w.refused(t, rotating, first, wire.ReasonTokenSuperseded)
	discharge()
	w.stolen(t, rotating, first)
	w.refused(t, rotating, tokens.token, wire.ReasonTokenReused)
}
