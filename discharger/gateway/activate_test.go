package gateway

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
	"github.com/discharger/discharger/policy"
)

// A login denied by policy leaves no new device behind, and no other device is removed.
func TestDeniedLoginLeavesNoDevice(t *testing.T) {
	t.Parallel()
	var deny atomic.Bool
	w := newWorld(t, func(w *world) {
		w.policy = func(*policy.Input) policy.Decision {
			if deny.Load() {
				return policy.Decision{Effect: policy.EffectDeny}
			}
			return policy.Decision{Effect: policy.EffectAllow}
		}
	})
	for i, c := range []struct {
		name   string
		before func(login anyMap) // earlier logins on the device
		named  bool               // the client names the device
		stays  bool
	}{
		{name: "new"},
		{name: "named by the client", named: true, stays: true},
		{name: "another session has it", stays: true, before: func(in anyMap) { w.login(false, in) }},
		{name: "a session had it, which logged out", stays: true, before: func(in anyMap) {
			w.want(w.do("POST", upstream.PathLogout, w.login(false, in).text("access_token"), anyMap{}), 200, "")
		}},
		{name: "a session had it, which ended softly", stays: true, before: func(in anyMap) {
			a := w.login(false, in)
			_, err := w.gateway.client.RevokeSession(t.Context(), a.text("user_id"), w.sessionOf(a.text("access_token")), wire.RevokeOptions{Soft: true})
			testkit.NoError(t, err)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			device := fmt.Sprintf("DEVICE%d", i)
			in := anyMap{"type": "m.login.password", "user": fmt.Sprintf("@user%d:hs", i), "password": "secret", "device_id": device}
			deny.Store(false)
			if c.before != nil {
				c.before(in)
			}
			if !c.named {
				delete(in, "device_id")
				w.hs.set(func(s *stub) { s.nextDevice = device })
			}
			deny.Store(true)
			logouts := w.hs.loggedOut()
			w.want(w.do("POST", pathLogin, "", in), http.StatusForbidden, matrix.CodeForbidden)
			if w.hs.alive(device) != c.stays || (w.hs.loggedOut() > logouts) == c.stays {
				t.Errorf("device is there: %v, %d logouts", !c.stays, w.hs.loggedOut()-logouts)
			}
			if n := w.pending(); n > 0 {
				t.Errorf("%d logouts are pending", n)
			}
		})
	}
}

// The device of a failed login is logged out later, also by another process, unless a
// session has begun on it.
func TestFailedLoginIsUndone(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(map[bool]string{false: "abandoned", true: "logged in again"}[again], func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				w.login(false) // the service has decided before
				w.down.Store(true)
				w.hs.set(func(s *stub) { s.nextDevice = "LATE" })
				w.want(w.do("POST", pathLogin, "", anyMap{"type": "m.login.password", "user": "@u:hs"}), 503, matrix.CodeUnknown)
				if !w.hs.alive("LATE") {
					t.Fatal("device logged out before the outcome of its login is known")
				}
				testkit.NoError(t, w.gateway.Close())
				w.down.Store(false)
				w.forward(service.ReadyFor)
				w.http.Close()
				w.cfg.Registerer = nil
				if again { // through another gateway, with an outbox of its own
					path := w.cfg.Outbox
					w.cfg.Outbox += ".other"
					w.startGateway()
					w.login(false, anyMap{"device_id": "LATE"})
					w.http.Close()
					testkit.NoError(t, w.gateway.Close())
					w.cfg.Outbox = path
				}
				w.startGateway()
				testkit.Eventually(t, "no logout is pending", func() bool { return w.pending() == 0 })
				if w.hs.alive("LATE") != again {
					t.Errorf("device is there: %v", !again)
				}
			})
		})
	}
}
