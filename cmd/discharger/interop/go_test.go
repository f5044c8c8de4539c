//go:build interop

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"
	"gopkg.in/errgo.v1"
	"gopkg.in/macaroon.v2"

	sessionbakery "github.com/discharger/discharger/discharger/bakery"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// tokenTransport is the part that the stock Go client lacks for mode rotate: it adds
// the refresh token to requests and keeps the new one. It serves one client, which
// makes one request at a time.
type tokenTransport struct {
	token string // in base64; empty: none yet
}

func (tt *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, wire.PathDischarge) {
		return http.DefaultTransport.RoundTrip(req)
	}
	req = req.Clone(req.Context())
	req.URL.RawQuery = withToken(req.URL.Query(), tt.token).Encode()
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		var d wire.DischargeResponse
		if err := json.Unmarshal(body, &d); err != nil {
			return nil, err
		}
		tt.token = d.RefreshToken
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// newGoClient returns a stock client, with a tokenTransport in mode rotate.
func newGoClient(mode caveat.Mode) (*httpbakery.Client, *tokenTransport) {
	client, tokens := httpbakery.NewClient(), new(tokenTransport)
	if mode == caveat.ModeRotate {
		client.Transport = tokens
	}
	return client, tokens
}

func testGo(t *testing.T, w *world) {
	eachFlow(t, w, func(t *testing.T, f flow) {
		l := f.issuer.login(t, f.user("go"), f.version, f.mode)
		others := w.bystanders(t, f.issuer, l)
		client, tokens := newGoClient(f.mode)
		// A client keeps its access macaroon, drops expired discharges and fetches
		// missing ones.
		slice := bakery.Slice{l.macaroon(t)}
		var bundles []macaroon.Slice
		for range 3 {
			var err error
			if slice, err = client.DischargeAllUnbound(t.Context(), slice[:1]); err != nil {
				t.Fatal(err)
			}
			bundles = append(bundles, slice.Bind())
		}
		if kept := len(slice.Purge(time.Now())); kept != 2 {
			t.Errorf("the client would keep %d macaroons, want the access macaroon and its discharge", kept)
		}
		if a := w.post(t, wire.PathLogout, withToken(l.params(t), tokens.token)); a.status != http.StatusOK || a.body != "{}" {
			t.Fatalf("logout: %s", a)
		}
		_, err := client.DischargeAll(t.Context(), l.macaroon(t))
		refusedByBakery(t, err, httpbakery.ErrPermissionDenied)
		w.loggedOut(t, l, tokens.token)
		f.accepted(t, l, bundles)
		others.live(t, w)
	})
}

// refusedByBakery checks that the stock client reports an error as a third party's
// decision with a code.
func refusedByBakery(t *testing.T, err error, code httpbakery.ErrorCode) {
	t.Helper()
	refusal, ok := errgo.Cause(err).(*httpbakery.DischargeError)
	if !ok {
		t.Fatalf("error is %#v, want a DischargeError", err)
	}
	if refusal.Reason.Code != code || refusal.Reason.Message == "" {
		t.Errorf("error is %v with the code %q, want %q", err, refusal.Reason.Code, code)
	}
}

// testGoBakeryClient runs the sequence with package bakery, in mode rotate.
func testGoBakeryClient(t *testing.T, w *world) {
	c, err := client.New(client.Config{URL: w.service.url})
	if err != nil {
		t.Fatal(err)
	}
	for version := caveat.V1; version <= caveat.V3; version++ {
		f := flow{w.stock, version, caveat.ModeRotate}
		t.Run(f.String(), func(t *testing.T) {
			l := w.stock.login(t, f.user("bakeryclient"), version, f.mode)
			others := w.bystanders(t, w.stock, l)
			access, err := sessionbakery.Access(l.macaroon(t))
			if err != nil {
				t.Fatal(err)
			}
			var token client.RefreshToken
			session, err := c.NewSession(client.SessionConfig{
				Access: access,
				Save:   func(_ context.Context, next client.RefreshToken) error { token = next; return nil },
			})
			if err != nil {
				t.Fatal(err)
			}
			acquire := sessionbakery.AcquireDischarge(session, httpbakery.NewClient().AcquireDischarge)
			held := bakery.Slice{l.macaroon(t)}
			var bundles []macaroon.Slice
			for n := range 3 {
				if n > 0 {
					if err := session.Refresh(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				all, err := held.DischargeAll(t.Context(), acquire, nil)
				if err != nil {
					t.Fatal(err)
				}
				bundles = append(bundles, all.Bind())
			}
			last := token
			if err := session.Logout(t.Context(), wire.ScopeSession); err != nil {
				t.Fatal(err)
			}
			_, err = held.DischargeAll(t.Context(), acquire, nil)
			if refused, ok := errgo.Cause(err).(*client.RefusedError); !ok || refused.Reason != wire.ReasonSessionEnded {
				t.Errorf("after the logout: %v", err)
			}
			w.loggedOut(t, l, string(last))
			f.accepted(t, l, bundles)
			others.live(t, w)
		})
	}
}

// testGoStolenToken presents a token that was superseded long ago.
func testGoStolenToken(t *testing.T, w *world) {
	f := flow{w.stock, caveat.V3, caveat.ModeRotate}
	l := w.stock.login(t, f.user("stolen"), f.version, f.mode)
	others := w.bystanders(t, w.stock, l)
	client, tokens := newGoClient(f.mode)
	var used []string
	for range 4 {
		if _, err := client.DischargeAll(t.Context(), l.macaroon(t)); err != nil {
			t.Fatal(err)
		}
		used = append(used, tokens.token)
	}
	// From the party that used the session last it is refused, and the session
	// lives; from another one it ends the session.
	w.refused(t, l, used[0], wire.ReasonTokenSuperseded)
	if _, err := client.DischargeAll(t.Context(), l.macaroon(t)); err != nil {
		t.Fatal(err)
	}
	w.stolen(t, l, used[0])
	_, err := client.DischargeAll(t.Context(), l.macaroon(t))
	refusedByBakery(t, err, httpbakery.ErrPermissionDenied)
	w.refused(t, l, used[len(used)-1], wire.ReasonTokenReused)
	others.live(t, w)
}

// authorized is a transport that sends a homeserver's API key.
type authorized string

func (key authorized) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set(wire.HeaderAuthorization, wire.AuthorizationPrefix+string(key))
	return http.DefaultTransport.RoundTrip(req)
}

// testGoHeld fetches discharges in mode held with the stock client and an API key.
func testGoHeld(t *testing.T, w *world) {
	l := w.ours.login(t, "@held:ours", caveat.V2, caveat.ModeHeld)
	other, homeserver := httpbakery.NewClient(), httpbakery.NewClient()
	homeserver.Transport = authorized(apiKey)
	for range 3 {
		bundle, err := homeserver.DischargeAll(t.Context(), l.macaroon(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.ours.check(l, bundle, time.Now()); err != nil {
			t.Error(err)
		}
		_, err = other.DischargeAll(t.Context(), l.macaroon(t))
		refusedByBakery(t, err, httpbakery.ErrPermissionDenied)
		w.refused(t, l, "", wire.ReasonHomeserverRequired)
	}
	homeserver.Transport = authorized("another key")
	_, err := homeserver.DischargeAll(t.Context(), l.macaroon(t))
	refusedByBakery(t, err, wire.CodeUnauthorized)
	homeserver.Transport = authorized(apiKey)
	if _, err := homeserver.DischargeAll(t.Context(), l.macaroon(t)); err != nil {
		t.Errorf("after a wrong API key: %v", err)
	}
}

// testGoStranger uses a homeserver that is not registered. The answer is 503: another
// process may have read its registration already.
func testGoStranger(t *testing.T, w *world) {
	for version := caveat.V1; version <= caveat.V3; version++ {
		t.Run(fmt.Sprintf("V%d", version), func(t *testing.T) {
			l := w.unknown.login(t, "@stranger:unknown", version, caveat.ModeOpen)
			_, err := httpbakery.NewClient().DischargeAll(t.Context(), l.macaroon(t))
			refusedByBakery(t, err, wire.CodeUnavailable)
		})
	}
}
