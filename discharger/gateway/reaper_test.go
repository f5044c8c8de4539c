package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
	"github.com/discharger/discharger/policy"
)

// offline stops a gateway's background work, so that the test runs it and no event of
// the feed arrives.
func (w *world) offline() {
	w.gateway.cancel()
	w.gateway.background.Wait()
	w.gateway.outbox.Stop()
}

// reconciled runs one reconciliation and the logouts that it finds.
func (w *world) reconciled() {
	w.t.Helper()
	testkit.NoError(w.t, w.gateway.outbox.Reconcile(context.Background(), 0))
	w.settled()
}

// The device of a softly ended session is logged out after ForgetAfter; that of a hard
// ended one at once, even if its event was missed.
func TestReaper(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(w *world, id caveat.SessionID)
		soft bool
	}{
		{"hard", func(w *world, id caveat.SessionID) { w.revoke(id, wire.RevokeOptions{}) }, false},
		{"soft", func(w *world, id caveat.SessionID) { w.revoke(id, wire.RevokeOptions{Soft: true}) }, true},
		{"idle", func(w *world, _ caveat.SessionID) {}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) { w.limits = session.Limits{Idle: 24 * time.Hour} })
			w.offline()
			in := w.login(false, anyMap{"device_id": "ONE"})
			c.end(w, w.sessionOf(in.text("access_token")))
			if !c.soft {
				w.reconciled()
				if w.hs.alive("ONE") {
					t.Error("device is still there")
				}
				return
			}
			for range 90 { // one reconciliation per day
				w.reconciled()
				if !w.hs.alive("ONE") {
					t.Fatal("device logged out too soon")
				}
				w.forward(24 * time.Hour)
			}
			w.forward(3 * 24 * time.Hour)
			w.reconciled() // the service's clock agrees with the elapsed time
			w.reconciled()
			if w.hs.alive("ONE") {
				t.Error("device is still there")
			}
			if n := w.pending(); n != 0 {
				t.Errorf("%d logouts pending", n)
			}
		})
	}
}

// The reaper spares a device that is in use: by a session of another gateway, or by the
// homeserver's last_seen_ts.
func TestReaperSparesDevicesInUse(t *testing.T) {
	t.Parallel()
	for _, why := range []string{"another session", "seen at the homeserver", "login here"} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			other := w.another()
			w.offline()
			in := w.login(true, anyMap{"device_id": "ONE"})
			w.revoke(w.sessionOf(in.text("access_token")), wire.RevokeOptions{Soft: true})
			w.reconciled()
			w.forward(testForget / 2)
			w.reconciled()
			w.forward(testForget/2 + time.Hour)
			var since answer
			switch why {
			case "another session":
				since = other.login(true, anyMap{"device_id": "ONE"})
			case "login here":
				since = w.login(true, anyMap{"device_id": "ONE"})
			default:
				w.hs.set(func(s *stub) { s.lastSeen = map[string]int64{"ONE": w.now().Add(-time.Hour).UnixMilli()} })
			}
			for range 3 {
				w.reconciled()
			}
			if n := w.pending(); n != 0 || w.hs.loggedOut() > 0 {
				t.Fatalf("%d logouts pending, %d done", n, w.hs.loggedOut())
			}
			if why != "seen at the homeserver" {
				other.works("the session since", since)
				return
			}
			w.forward(testForget)
			w.reconciled()
			w.reconciled()
			if w.hs.alive("ONE") {
				t.Error("device is still there, long after its last use")
			}
		})
	}
}

// The reaper logs nothing out in the first pass of a process, or while its clock is far
// ahead.
func TestReaperDistrustsClocks(t *testing.T) {
	t.Parallel()
	var behind atomic.Int64 // of the gateway's clock, behind the service's
	w := newWorld(t, func(w *world) {
		w.cfg.clock = func() time.Time { return w.now().Add(-time.Duration(behind.Load())) }
	})
	w.offline()
	in := w.login(false, anyMap{"device_id": "ONE"})
	w.revoke(w.sessionOf(in.text("access_token")), wire.RevokeOptions{Soft: true})
	w.reconciled()
	behind.Store(int64(2 * testForget))
	w.forward(2 * testForget)
	w.reconciled()
	w.forward(-2 * testForget)
	behind.Store(0)
	w.reconciled()
	w.forward(2 * testForget)
	w.restart()
	w.offline()
	w.reconciled()
	if w.hs.loggedOut() > 0 {
		t.Fatal("device was logged out")
	}
	w.reconciled()
	if w.hs.alive("ONE") {
		t.Error("device is still there")
	}
}

// The reaper compares the service's clock with the time that passed, and so it detects
// that both clocks were set, as on one machine.
func TestReaperDistrustsClockOfBoth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) {
		w.cfg.clock = func() time.Time {
			now := time.Now()
			return setClock(now, w.now().Sub(now).Truncate(time.Second))
		}
	})
	w.offline()
	in := w.login(false, anyMap{"device_id": "ONE"})
	w.revoke(w.sessionOf(in.text("access_token")), wire.RevokeOptions{Soft: true})
	w.reconciled()
	w.forward(2 * testForget)
	w.reconciled()
	if w.hs.loggedOut() > 0 {
		t.Fatal("device was logged out")
	}
	w.reconciled()
	if w.hs.alive("ONE") {
		t.Error("device is still there")
	}
}

// setClock returns the time that time.Now would return if the wall clock had been set by
// whole seconds: its monotonic reading is unchanged.
func setClock(now time.Time, by time.Duration) time.Time {
	wall := (*uint64)(unsafe.Pointer(&now)) // 1 bit, 33 bits of seconds, 30 bits of nanoseconds
	*wall += uint64(by/time.Second) << 30
	return now
}

// A reconciliation that would log out most devices is refused.
func TestReconcileRefusesMassLogout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.offline()
	for range outbox.ReconcileFew + 10 {
		w.login(false)
	}
	w.forward(time.Second)
	testkit.NoError(t, w.gateway.client.RevokeHomeserver(t.Context(), wire.RevokeOptions{}))
	if err := w.gateway.outbox.Reconcile(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "no device is logged out") {
		t.Errorf("error of a mass logout: %v", err)
	}
	w.settled()
	if w.hs.loggedOut() > 0 {
		t.Error("devices were logged out")
	}
}

// rewrite changes the outbox file while no gateway has it open.
func (w *world) rewrite(f func(tx *bbolt.Tx) error) {
	w.t.Helper()
	w.http.Close()
	testkit.NoError(w.t, w.gateway.Close())
	db, err := bbolt.Open(w.cfg.Outbox, 0o600, nil)
	testkit.NoError(w.t, err)
	testkit.NoError(w.t, db.Update(f))
	testkit.NoError(w.t, db.Close())
	w.cfg.Registerer = nil
	w.startGateway()
}

// A pending logout written by an earlier version has neither user and device nor the
// kind of end. Homeserver and service determine them; otherwise the device stays until
// the reaper runs.
func TestOutboxOfEarlierVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		end     func(w *world, id caveat.SessionID)
		gone    bool // the device is logged out
		waiting bool // the reaper considers the session
	}{
		{"hard", func(w *world, id caveat.SessionID) { w.revoke(id, wire.RevokeOptions{}) }, true, false},
		{"soft", func(w *world, id caveat.SessionID) { w.revoke(id, wire.RevokeOptions{Soft: true}) }, false, true},
		{"live", func(*world, caveat.SessionID) {}, false, true},
		{"login since", func(w *world, _ caveat.SessionID) { w.login(false, anyMap{"device_id": "ONE"}) }, false, false},
		{"forgotten", func(w *world, id caveat.SessionID) { w.forward(4 * time.Hour) }, false, true},
		{"unknown at the homeserver", func(w *world, _ caveat.SessionID) { w.hs.set(func(s *stub) { clear(s.tokens) }) }, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) { w.limits = session.Limits{Idle: time.Hour} })
			in := w.login(false, anyMap{"device_id": "ONE"})
			id := w.sessionOf(in.text("access_token"))
			w.offline()
			var box []byte
			w.rewrite(func(tx *bbolt.Tx) error {
				var s struct{ Box []byte }
				err := json.Unmarshal(tx.Bucket([]byte("sessions")).Get(id[:]), &s)
				if box = s.Box; err != nil {
					return err
				}
				if err := tx.Bucket([]byte("by_user")).Delete(append([]byte("@u:hs\x00"), id[:]...)); err != nil {
					return err
				}
				return tx.Bucket([]byte("sessions")).Delete(id[:])
			})
			w.offline()
			c.end(w, id)
			w.rewrite(func(tx *bbolt.Tx) error {
				old, err := json.Marshal(map[string]any{"box": box, "tries": 3})
				if err != nil {
					return err
				}
				order, err := json.Marshal(map[string]any{"op": "older", "user": "@u:hs", "device": "ONE", "session": id, "at": 1})
				if err != nil {
					return err
				}
				if err := tx.Bucket([]byte("orders")).Put([]byte{0, 0, 0, 0, 0, 0, 0, 9}, order); err != nil {
					return err
				}
				return tx.Bucket([]byte("condemned")).Put(id[:], old)
			})
			w.settled()
			if n := w.pending(); n != 0 {
				t.Errorf("%d logouts pending", n)
			}
			if gone := w.hs.loggedOut() == 1; gone != c.gone {
				t.Errorf("logged out: %v", gone)
			}
			if waiting := w.kept(id); waiting != c.waiting {
				t.Errorf("considered by the reaper: %v", waiting)
			}
			w.rewrite(func(tx *bbolt.Tx) error {
				if key, _ := tx.Bucket([]byte("orders")).Cursor().First(); key != nil {
					t.Error("a revocation is pending")
				}
				return nil
			})
		})
	}
}

// A soft end of any reason leads to no logout at the homeserver and no soft_logout
// false: repeated, after restarts of the gateway, and at another one.
func TestSoftEndsStaySoft(t *testing.T) {
	t.Parallel()
	homeservers(t, func(t *testing.T, dendrite bool) {
		ends := map[string]func(w *world, in answer){
			"idle":     func(w *world, _ answer) { w.forward(25 * time.Hour) },
			"absolute": func(w *world, _ answer) { w.forward(200 * time.Hour) },
			"order": func(w *world, in answer) {
				w.revoke(w.sessionOf(in.text("access_token")), wire.RevokeOptions{Soft: true})
			},
			"user": func(w *world, _ answer) {
				_, err := w.gateway.client.RevokeUser(w.t.Context(), "@u:hs", wire.RevokeOptions{Soft: true})
				testkit.NoError(t, err)
			},
			"device": func(w *world, _ answer) {
				_, err := w.gateway.client.RevokeDevice(w.t.Context(), "@u:hs", "ONE", wire.RevokeOptions{Soft: true})
				testkit.NoError(t, err)
			},
			"all": func(w *world, _ answer) {
				testkit.NoError(t, w.gateway.client.RevokeHomeserver(w.t.Context(), wire.RevokeOptions{Soft: true}))
			},
			"reauth":   func(w *world, _ answer) { w.reauth.Store(true) },
			"replaced": func(w *world, _ answer) { w.login(true, anyMap{"device_id": "ONE"}) },
		}
		for _, name := range slices.Sorted(maps.Keys(ends)) {
			for _, refresh := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, refresh %v", name, refresh), func(t *testing.T) {
					t.Parallel()
					softEnd(t, name, ends[name], dendrite, refresh)
				})
			}
		}
	})
}

func softEnd(t *testing.T, name string, end func(*world, answer), dendrite, refresh bool) {
	bubble(t, func(t *testing.T, one *world) {
		staysSoft(t, one, name, end, refresh)
	}, like(dendrite), func(w *world) {
		w.limits = session.Limits{Idle: 24 * time.Hour, Absolute: 7 * 24 * time.Hour}
		w.policy = func(in *policy.Input) policy.Decision {
			if w.reauth.Load() && in.Action != policy.ActionActivate {
				return policy.Decision{Effect: policy.EffectReauth}
			}
			return policy.Decision{Effect: policy.EffectAllow}
		}
	})
}

// staysSoft ends a session and checks that it stays softly ended at two gateways.
func staysSoft(t *testing.T, one *world, name string, end func(*world, answer), refresh bool) {
	two := one.another()
	in := one.works("the session", one.login(refresh, anyMap{"device_id": "ONE"}))
	one.forward(time.Second)
	end(one, in)
	if name == "reauth" {
		one.forward(testTTL) // detected at the next discharge
	}
	var since answer
	check := func(what string, w *world) {
		t.Helper()
		w.settled()
		testkit.NoError(t, w.gateway.outbox.Reconcile(t.Context(), 0))
		w.settled()
		if a := w.do("GET", upstream.PathWhoami, in.text("access_token"), nil); a.status != 401 || !a.soft() {
			t.Errorf("%s: whoami: %d %s", what, a.status, a.raw)
		}
		if refresh {
			if a := w.refresh(in.text("refresh_token")); a.status != 401 || !a.soft() {
				t.Errorf("%s: refresh: %d %s", what, a.status, a.raw)
			}
		}
		if since.body != nil {
			since = w.works(what+": the login since", since)
		}
		w.settled()
	}
	testkit.Eventually(t, "both gateways refuse the session", func() bool {
		return one.do("GET", upstream.PathWhoami, in.text("access_token"), nil).status == 401 &&
			two.do("GET", upstream.PathWhoami, in.text("access_token"), nil).status == 401
	})
	for range 2 {
		check("one", one)
		check("two", two)
		one.restart()
		check("after a restart", one)
		if since.body == nil {
			one.reauth.Store(false)
			since = two.login(true, anyMap{"device_id": "ONE"})
		}
		one.forward(30 * time.Second)
	}
	if one.hs.loggedOut() > 0 {
		t.Error("device was logged out at the homeserver")
	}
}

// A delayed logout spares a device that was in use after its session ended: another
// gateway had a session on it, which may have ended softly since.
func TestLateLogoutSparesDeviceInUse(t *testing.T) {
	t.Parallel()
	for _, used := range []bool{false, true} {
		t.Run(fmt.Sprintf("used since %v", used), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) { w.limits = session.Limits{Idle: time.Hour} })
			w.offline()
			old := w.login(false, anyMap{"device_id": "ONE"})
			w.hs.set(func(s *stub) {
				s.failLogouts = 1
				s.lastSeen = map[string]int64{"ONE": w.now().UnixMilli()}
			})
			w.revoke(w.sessionOf(old.text("access_token")), wire.RevokeOptions{})
			testkit.NoError(t, w.gateway.outbox.Reconcile(t.Context(), 0))
			if err := w.gateway.outbox.Flush(t.Context()); err == nil {
				t.Fatal("logout did not fail")
			}
			if used {
				w.forward(time.Hour)
				w.another().login(false, anyMap{"device_id": "ONE"})
				w.hs.set(func(s *stub) { s.lastSeen["ONE"] = w.now().UnixMilli() })
			}
			w.forward(4 * time.Hour) // the later session has ended softly
			w.settled()
			if n := w.pending(); n != 0 || w.hs.alive("ONE") != used {
				t.Errorf("%d logouts pending, device is there: %v", n, !used)
			}
		})
	}
}
