package gateway

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// A live session with a stale end in the feed ends at the next revocation that covers
// it, not a minute later.
func TestConfirmedSessionEnds(t *testing.T) {
	t.Parallel()
	for _, device := range []bool{false, true} {
		t.Run(fmt.Sprintf("device %v", device), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.forward(time.Hour) // the clock is wrong
				_, err := w.gateway.client.RevokeUser(t.Context(), "@u:hs", wire.RevokeOptions{Soft: true})
				testkit.NoError(t, err)
				synctest.Wait()
				w.forward(-time.Hour)
				_, err = w.gateway.client.LiftMarks(t.Context(), "@u:hs")
				testkit.NoError(t, err)
				w.forward(time.Minute)
				in := w.login(true, anyMap{"device_id": "ONE"})
				id, err := w.gateway.hs.Verify(t.Context(), in.text("access_token")[token.PrefixSize:], homeserver.Request{})
				testkit.NoError(t, err)
				if _, stale := w.gateway.feed.RevokedKind(id); !stale {
					t.Error("the feed has no end of the session")
				}
				w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
				w.forward(time.Second)
				if device {
					_, err = w.gateway.client.RevokeDevice(t.Context(), "@u:hs", "ONE", wire.RevokeOptions{Soft: true})
				} else {
					_, err = w.gateway.client.RevokeUser(t.Context(), "@u:hs", wire.RevokeOptions{Soft: true})
				}
				testkit.NoError(t, err)
				testkit.Eventually(t, "the session is refused", func() bool {
					return w.do("GET", upstream.PathWhoami, in.text("access_token"), nil).status == 401
				})
			})
		})
	}
}

// The kind of an end is not taken from another server's response about its own tokens.
// If the state of a token at the homeserver is unknown, no session ends.
func TestKindOfRejectedToken(t *testing.T) {
	t.Parallel()
	t.Run("soft", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		token := w.login(false).text("access_token")
		w.hs.set(func(s *stub) { s.softly[s.made[0]] = 1 })
		w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == upstream.PathWhoami {
				w.hs.serve(rw, r)
				return
			}
			rw.WriteHeader(http.StatusUnauthorized)
			_, _ = rw.Write([]byte(`{"errcode":"M_UNKNOWN_TOKEN","error":"says the identity server"}`))
		}
		if a := w.want(w.do("POST", "/_matrix/client/v3/account/3pid/bind", token, anyMap{}), 401, matrix.CodeUnknownToken); !a.soft() {
			t.Errorf("%s", a.raw)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, like(true))
		token := w.login(false).text("access_token")
		w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == upstream.PathWhoami {
				rw.WriteHeader(http.StatusInternalServerError)
				return
			}
			rw.WriteHeader(http.StatusUnauthorized)
			_, _ = rw.Write([]byte(`{"errcode":"M_UNKNOWN_TOKEN","error":"Unknown token"}`))
		}
		w.want(w.do("GET", "/_matrix/client/v3/sync", token, nil), 503, matrix.CodeUnknown)
	})
}

// A logout during an outage of the service persists, also after a restart.
func TestLogoutPersists(t *testing.T) {
	t.Parallel()
	for _, refresh := range []bool{false, true} {
		t.Run(fmt.Sprintf("refresh %v", refresh), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				in := w.login(refresh, anyMap{"device_id": "ONE"})
				w.down.Store(true)
				w.want(w.do("POST", upstream.PathLogout, in.text("access_token"), anyMap{}), 200, "")
				w.restart()
				w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken)
				w.down.Store(false)
				w.gateway.outbox.Wake()
				testkit.Eventually(t, "the logout is delivered to service and homeserver", func() bool { return w.sessions() == 0 && !w.hs.alive("ONE") })
			})
		})
	}
}

// If the service has no record of a session, it logs out its device only if the gateway
// has that device and no decision ended the session softly.
func TestLogoutOfForgottenSession(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(w *world, in answer)
	}{
		{"replaced", func(w *world, _ answer) { w.login(false, anyMap{"device_id": "ONE"}) }},
		{"order", func(w *world, in answer) {
			w.revoke(w.sessionOf(in.text("access_token")), wire.RevokeOptions{Soft: true})
			testkit.Eventually(w.t, "the gateway has the end", func() bool {
				return w.do("GET", upstream.PathWhoami, in.text("access_token"), nil).status == 401
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				old := w.login(false, anyMap{"device_id": "ONE"})
				c.end(w, old)
				w.forward(4 * time.Hour)
				w.restart()
				w.offline()
				w.gateway.outbox.Ends.Remove(w.sessionOf(old.text("access_token"))) // as after eviction from the feed
				if a := w.want(w.do("POST", upstream.PathLogout, old.text("access_token"), anyMap{}), 401, matrix.CodeUnknownToken); !a.soft() {
					t.Errorf("%s", a.raw)
				}
				w.settled()
				if w.hs.loggedOut() > 0 {
					t.Error("device was logged out")
				}
			}, func(w *world) { w.limits = session.Limits{Idle: time.Hour} })
		})
	}
}
