package gateway

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rules"
)

// A refusal of a request does not end the session, and no response states that it
// ended.
func TestRefusalsOfRequests(t *testing.T) {
	t.Parallel()
	t.Run("denied by the policy", func(t *testing.T) {
		t.Parallel()
		deny := false
		w := newWorld(t, denying(&deny))
		held, rotate := w.login(false), w.login(true)
		w.forward(testTTL)
		deny = true
		if a := w.want(w.do("GET", upstream.PathWhoami, held.text("access_token"), nil), 403, matrix.CodeForbidden); strings.Contains(string(a.raw), "is over") {
			t.Errorf("%s", a.raw)
		}
		if a := w.want(w.refresh(rotate.text("refresh_token")), 401, matrix.CodeUnknownToken); !a.soft() || strings.Contains(string(a.raw), "is over") {
			t.Errorf("%s", a.raw)
		}
		deny = false
		w.forward(time.Minute)
		w.works("held", held)
		w.works("rotate", w.want(w.refresh(rotate.text("refresh_token")), 200, ""))
		if n := w.sessions(); n != 2 || w.hs.loggedOut() > 0 {
			t.Errorf("%d sessions, %d logouts", n, w.hs.loggedOut())
		}
	})
	for _, c := range []struct {
		reason        string
		ended, soft   bool
		held, refresh int // statuses; 401 is soft unless the session ended hard
		alarm         bool
	}{
		{wire.ReasonTokenRequired, false, false, 503, 503, true},
		{wire.ReasonHomeserverRequired, false, false, 503, 503, true},
		{wire.ReasonTokenInvalid, false, false, 503, 401, true},
		{wire.ReasonTokenSuperseded, false, false, 401, 401, false},
		{"too_late_at_night", false, false, 403, 401, false},
		{wire.ReasonSessionEnded, true, false, 401, 401, false},
		{wire.ReasonSessionLost, true, true, 401, 401, false},
		{wire.ReasonReplaced, true, true, 401, 401, false},
	} {
		t.Run(fmt.Sprintf("%s, ended %v", c.reason, c.ended), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			refused := &client.RefusedError{Reason: c.reason, Ended: c.ended, SoftLogout: c.soft, Message: "because"}
			x := &exchange{}
			for what, want := range map[string]int{"request": c.held, "refresh": c.refresh} {
				f := w.gateway.refusal(t.Context(), refused)
				if what == "refresh" {
					f = w.gateway.refreshRefused(t.Context(), x, refused)
				}
				hard := c.ended && !c.soft
				if f.Status != want || f.Status == 401 && (f.SoftLogout == hard || f.Code != matrix.CodeUnknownToken) || f.Status == 503 && what == "refresh" && !f.Plain {
					t.Errorf("%s: %+v", what, f)
				}
				if said := strings.Contains(f.Message, "session is over"); said != c.ended {
					t.Errorf("%s: message %q", what, f.Message)
				}
			}
			if alarm := strings.Contains(w.log.String(), `"level":"ERROR"`); alarm != c.alarm {
				t.Errorf("ERROR logged: %v", alarm)
			}
		})
	}
}

// A denied login leaves no device behind, unless the client named it.
func TestDeniedLogin(t *testing.T) {
	t.Parallel()
	for _, device := range []string{"", "ONE"} {
		t.Run("device "+device, func(t *testing.T) {
			t.Parallel()
			deny := true
			w := newWorld(t, denying(&deny))
			in := anyMap{"type": "m.login.password", "user": "@u:hs"}
			if device != "" {
				in["device_id"] = device
			}
			w.want(w.do("POST", pathLogin, "", in), 403, matrix.CodeForbidden)
			if gone := w.hs.loggedOut() == 1; gone != (device == "") || w.sessions() != 0 || w.pending() != 0 {
				t.Errorf("logged out: %v, %d sessions, %d pending", gone, w.sessions(), w.pending())
			}
		})
	}
}

// Attempts of one party at one refresh have one request id; other parties have other
// ids.
func TestRequestIDIsOfParty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := func(text, addr, client string) string {
		return w.gateway.requestID(text, netip.MustParseAddr(addr), client)
	}
	first := id("dgr_x", "2001:db8::1", "Element")
	for _, c := range []struct {
		name, text, addr, client string
		same                     bool
	}{
		{"again", "dgr_x", "2001:db8::1", "Element", true},
		{"another host of the IPv6 network", "dgr_x", "2001:db8::2", "Element", true},
		{"another IPv6 network", "dgr_x", "2001:db8:0:1::1", "Element", false},
		{"IPv4", "dgr_x", "192.0.2.1", "Element", false},
		{"another client", "dgr_x", "2001:db8::1", "FluffyChat", false},
		{"another token", "dgr_y", "2001:db8::1", "Element", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := id(c.text, c.addr, c.client); (got == first) != c.same || len(got) > wire.MaxRequestID {
				t.Errorf("id %s, first id %s", got, first)
			}
		})
	}
	if id("dgr_x", "192.0.2.1", "Element") == id("dgr_x", "192.0.2.2", "Element") {
		t.Error("two IPv4 addresses count as one party")
	}
}

// from sends a request from an address.
func (w *world) from(addr, method, path, token string, body any) answer {
	w.t.Helper()
	req := w.request(method, path, token, body)
	req.Header.Set("X-Forwarded-For", addr)
	return w.send(req)
}

// If a policy compares addresses, a discharge is bound to one: at another address a
// held token needs a new discharge, and a client in mode rotate refreshes.
func TestBoundToAddress(t *testing.T) {
	t.Parallel()
	const home, away = "192.0.2.1", "198.51.100.1"
	for _, refresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("refresh %v", refresh), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) {
				set, err := rules.Load(rules.Config{})
				testkit.NoError(t, err)
				w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
				w.policy = func(in *policy.Input) policy.Decision {
					in.Policy = "strict"
					d, err := set.Evaluate(t.Context(), in)
					testkit.NoError(t, err)
					return d
				}
			})
			in := w.want(w.from(home, "POST", pathLogin, "", anyMap{
				"type": "m.login.password", "user": "@u:hs", "device_id": "ONE", "refresh_token": refresh,
			}), 200, "")
			token := in.text("access_token")
			w.want(w.from(home, "GET", upstream.PathWhoami, token, nil), 200, "")
			w.forward(service.RebindInterval)
			if a := w.want(w.from(away, "GET", upstream.PathWhoami, token, nil), 401, matrix.CodeUnknownToken); !a.soft() {
				t.Errorf("other address: %s", a.raw)
			}
			if refresh { // the session lives, and a copied access token is useless
				w.want(w.from(home, "GET", upstream.PathWhoami, token, nil), 200, "")
				if a := w.want(w.from(away, "POST", upstream.PathLogout, token, anyMap{}), 401, matrix.CodeUnknownToken); !a.soft() {
					t.Errorf("logout from another address: %s", a.raw)
				}
				w.want(w.from(home, "POST", pathRefresh, "", anyMap{"refresh_token": in.text("refresh_token")}), 200, "")
				if a := w.want(w.from(away, "POST", pathRefresh, "", anyMap{"refresh_token": in.text("refresh_token")}), 401, matrix.CodeUnknownToken); !a.soft() {
					t.Errorf("refresh from another address: %s", a.raw)
				}
			}
			if a := w.want(w.from(home, "GET", upstream.PathWhoami, token, nil), 401, matrix.CodeUnknownToken); !a.soft() {
				t.Errorf("own address: %s", a.raw)
			}
			w.settled()
			if w.hs.loggedOut() > 0 {
				t.Error("device was logged out")
			}
		})
	}
}

// Requests of the gateway on behalf of a client have its address and name, which the
// homeserver shows in its list of devices.
func TestOwnRequestsNameClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	req := w.request("POST", pathRefresh, "", anyMap{"refresh_token": in.text("refresh_token")})
	req.Header.Set("User-Agent", "Element")
	w.want(w.send(req), 200, "")
	last := w.hs.last(t)
	if last.URI != upstream.PathWhoami || last.Header.Get("User-Agent") != "Element" || last.Header.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("%s %v", last.URI, last.Header)
	}
}

// A refresh continues if the homeserver does not answer.
func TestRefreshWithoutHomeserver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.login(true)
	w.hs.leave()
	w.want(w.refresh(in.text("refresh_token")), http.StatusOK, "")
}

// An ended session is refused as the service decided, by a gateway that has only the
// feed, and during an outage of the service.
func TestKindFromFeed(t *testing.T) {
	t.Parallel()
	for _, soft := range []bool{false, true} {
		for _, scope := range []string{"session", "device", "user"} {
			for _, refresh := range []bool{false, true} {
				t.Run(fmt.Sprintf("soft %v, %s, refresh %v", soft, scope, refresh), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T, one *world) {
						two := one.another()
						in := one.login(refresh, anyMap{"device_id": "ONE"})
						two.want(two.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
						one.forward(time.Second)
						o := wire.RevokeOptions{Soft: soft}
						var err error
						switch scope {
						case "session":
							one.revoke(one.sessionOf(in.text("access_token")), o)
						case "device":
							_, err = one.gateway.client.RevokeDevice(t.Context(), "@u:hs", "ONE", o)
						default:
							_, err = one.gateway.client.RevokeUser(t.Context(), "@u:hs", o)
						}
						testkit.NoError(t, err)
						id, err := two.gateway.hs.VerifyAccess(t.Context(), in.text("access_token")[token.PrefixSize:], homeserver.Request{})
						testkit.NoError(t, err)
						testkit.Eventually(t, "both feeds have the revocation", func() bool { return one.gateway.feed.Revoked(id) && two.gateway.feed.Revoked(id) })
						one.down.Store(true)
						for _, w := range []*world{one, two} {
							if a := w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken); a.soft() != soft {
								t.Errorf("service down: %s", a.raw)
							}
						}
						one.down.Store(false)
						for _, w := range []*world{one, two} {
							if a := w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken); a.soft() != soft {
								t.Errorf("%s", a.raw)
							}
						}
					})
				})
			}
		}
	}
}
