package matrix

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// roundsVariable is the environment variable with the number of rounds of each
// scenario.
const roundsVariable = "DISCHARGER_TEST_ROUNDS"

// testRounds returns the number of rounds.
func testRounds(t *testing.T) int {
	t.Helper()
	text := os.Getenv(roundsVariable)
	if text == "" {
		return 5
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number of 1 or more", roundsVariable, text)
	}
	return n
}

// TestDevices logs in clients again and again on one device, in every order, before
// each homeserver and in each mode. Afterwards the newest session is alive, with its
// device and keys at the homeserver; the older ones have ended softly.
func TestDevices(t *testing.T) {
	k := assemble(t)
	before(t, k, func(t *testing.T, h *homeserver) {
		for mode, rotate := range map[string]bool{"held": false, "rotate": true} {
			t.Run(mode, func(t *testing.T) {
				t.Parallel()
				testDevices(t, k, h, rotate)
			})
		}
	})
}

// scenario is a sequence of events on a device.
type scenario struct {
	name string
	play func(*testing.T, *stage)
}

func testDevices(t *testing.T, k *kit, h *homeserver, rotate bool) {
	for name, apart := range map[string]int{"one gateway": 0, "two gateways": 2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := deploy(t, k, h, settings{apart: apart, ttl: 5 * time.Second})
			for _, c := range scenarios(h, rotate) {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					c.play(t, d.newStage(t, rotate))
				})
			}
		})
	}
	type alone struct {
		scenario
		settings
	}
	plain := settings{ttl: 5 * time.Second}
	idling := settings{ttl: 2 * time.Second, idle: 8 * time.Second}
	forgetting := idling
	forgetting.forget = 3 * time.Second
	apart := []alone{
		{scenario{"restart of serve", restarts((*deployment).restartService)}, plain},
		{scenario{"restart of the service", restarts((*deployment).restartService)}, plain.with(2)},
		{scenario{"restart of gateways", restarts((*deployment).restartGateways)}, plain.with(2)},
		{scenario{"idle", playIdle}, idling},
		{scenario{"idle, two gateways", playIdle}, idling.with(2)},
		{scenario{"idle alone", playIdleAlone}, idling},
		{scenario{"forgotten", playForgotten}, forgetting},
		{scenario{"forgotten, two gateways", playForgotten}, forgetting.with(2)},
	}
	if h.kind.name == synapseKind().name {
		apart = append(apart, alone{scenario{"guest revoked", playGuest}, settings{ttl: 5 * time.Second, count: true}})
	}
	for _, c := range apart {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.play(t, deploy(t, k, h, c.settings).newStage(t, rotate))
		})
	}
}

// scenarios returns the scenarios that may run concurrently.
func scenarios(h *homeserver, rotate bool) []scenario {
	all := []scenario{{"in turn", playInTurn}, {"old client, meanwhile", playMeanwhile}, {"logout", playLogout}}
	for _, n := range []int{2, 3, 12} {
		all = append(all, scenario{fmt.Sprintf("%d at once", n), atOnce(n)})
	}
	for _, a := range actions(rotate) {
		all = append(all, scenario{"old client, " + a.name, returns(a)})
	}
	if rotate {
		all = append(all, scenario{"logout, expired", playLogoutExpired}, scenario{"logout everywhere, expired", playLogoutAllExpired})
	}
	if h.kind.name == synapseKind().name {
		all = append(all, scenario{"administrator as user", playAsUser},
			scenario{"deleted by administrator", playDeleted})
	}
	return all
}

// action is a request of a client whose session is over.
type action struct {
	name string
	do   func(*testing.T, *device) answer
}

const (
	actionLogout  = "logout"
	actionRefresh = "refresh"
)

func actions(rotate bool) []action {
	all := []action{
		{"request", func(t *testing.T, d *device) answer { return d.asIs(t) }},
		{actionLogout, func(t *testing.T, d *device) answer { return d.logout(t) }},
	}
	if rotate {
		all = append(all, action{actionRefresh, func(t *testing.T, d *device) answer { return d.refreshed(t) }})
	}
	return all
}

// logout logs out with the device's current access token.
func (d *device) logout(t *testing.T) answer {
	t.Helper()
	return d.user.site.call(t, "POST", clientV3+"/logout", d.token, body{})
}

func playInTurn(t *testing.T, s *stage) {
	for range s.rounds {
		name := randomName()
		var all []*device
		for i := range 4 {
			d := s.login(t, i, name)
			s.alive(t, d)
			all = append(all, d)
		}
		newest := all[len(all)-1]
		newest.uploadKeys(t)
		s.only(t, newest, all[:len(all)-1]...)
	}
	s.finish(t)
}

// atOnce logs in n clients at once. In every other round the device exists before,
// with keys that must stay.
func atOnce(n int) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		for i := range s.rounds {
			name, key := randomName(), ""
			var before []*device
			if i%2 == 0 {
				d := s.login(t, i, name)
				d.uploadKeys(t)
				before, key = append(before, d), d.key
			}
			newest, older := s.survivor(t, s.loginAtOnce(t, n, name))
			if newest == nil {
				s.kept(t, &device{user: s.user, id: name, key: key})
				newest = s.login(t, i, name)
			}
			if newest.key = key; key == "" {
				newest.uploadKeys(t)
			}
			s.only(t, newest, append(before, older...)...)
		}
		s.finish(t)
	}
}

// returns makes requests of an older session, at once and later.
func returns(a action) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		for i := range s.rounds {
			name := randomName()
			old := s.login(t, i, name)
			s.alive(t, old)
			newest := s.login(t, i+1, name)
			newest.uploadKeys(t)
			// A gateway accepts a discharge until the end of the session reaches it.
			first := decided(t, func() answer { return a.do(t, old) })
			if first.status != http.StatusOK || a.name == actionRefresh {
				first.over(t)
			}
			s.only(t, newest, old)
			for _, g := range s.gateways {
				decided(t, func() answer { return a.do(t, old.through(&g.site)) }).over(t)
			}
		}
		s.finish(t)
	}
}

// playMeanwhile makes requests of an older session during the login of another.
func playMeanwhile(t *testing.T, s *stage) {
	for i := range s.rounds {
		name := randomName()
		old := s.login(t, i, name)
		s.alive(t, old)
		during, stop := make(chan answer), make(chan struct{})
		go func() {
			defer close(during)
			for over := false; !over; {
				select {
				case <-stop:
					over = true // one more, after the login
				default:
				}
				a, err := old.user.site.try("GET", clientV3+"/account/whoami", old.token, nil)
				if err != nil || a.status == http.StatusUnauthorized {
					during <- a
					return
				}
			}
		}()
		newest := s.login(t, i+1, name)
		close(stop)
		if a, refused := <-during; refused {
			a.over(t)
		}
		newest.uploadKeys(t)
		s.only(t, newest, old)
	}
	s.finish(t)
}

// restarts makes requests of an older session after a restart. The newer login comes
// before or after the restart.
func restarts(restart func(*deployment, *testing.T, syscall.Signal)) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		all := actions(s.rotate)
		for i := range s.rounds {
			name := randomName()
			old := s.login(t, i, name)
			s.alive(t, old)
			newest := s.login(t, i+1, name)
			newest.uploadKeys(t)
			late := s.login(t, i, randomName())
			restart(s.deployment, t, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i%2])
			refused(t, all[i%len(all)], old)
			s.only(t, newest, old)
			s.alive(t, late)
			later := s.login(t, i, late.id)
			later.uploadKeys(t)
			s.only(t, later, late)
		}
		s.finish(t)
	}
}

// refused waits until a request of a replaced session is refused. A gateway whose
// feed is disconnected accepts the token until the feed is back or the discharge
// expires; a logout goes to the service.
func refused(t *testing.T, a action, old *device) {
	t.Helper()
	var came answer
	eventually(t, "the client of an older session is refused", func() bool {
		came = a.do(t, old)
		return came.status < 500 && (came.status != http.StatusOK || a.name == actionLogout)
	})
	came.over(t)
}

// repeat plays until a round in which the machine did not pause for so long that the
// newest session was idle for too long too.
func repeat(t *testing.T, s *stage, play func() bool) {
	t.Helper()
	for !play() {
		t.Log("the machine paused for too long, once more")
		s.played = nil
	}
}

// playIdle logs in on a device whose session was idle for too long, and then makes
// requests of that session.
func playIdle(t *testing.T, s *stage) {
	repeat(t, s, func() bool {
		all := actions(s.rotate)
		var olds []*device
		for i := range all {
			olds = append(olds, s.login(t, i, randomName()))
		}
		s.runOut(t, olds...)
		for i, a := range all {
			newest := s.login(t, i+1, olds[i].id)
			if !s.uploadKeys(t, newest) {
				return false
			}
			// A logout of a session that is over may succeed.
			came := decided(t, func() answer { return a.do(t, olds[i]) })
			if came.status != http.StatusOK || a.name != actionLogout {
				came.over(t)
			}
			if !s.only(t, newest, olds[i]) {
				return false
			}
		}
		return s.finish(t)
	})
}

// playIdleAlone logs out of a session that was idle for too long.
func playIdleAlone(t *testing.T, s *stage) {
	d := s.login(t, 0, randomName())
	d.uploadKeys(t)
	s.runOut(t, d)
	s.kept(t, d)
	if a := decided(t, func() answer { return d.logout(t) }); a.status != http.StatusOK {
		a.over(t)
	}
	s.gone(t, d)
}

// playForgotten waits until devices of sessions that were idle for too long are
// logged out at the homeserver, except a device with a newer session.
func playForgotten(t *testing.T, s *stage) {
	repeat(t, s, func() bool {
		old := s.login(t, 0, randomName())
		if !s.uploadKeys(t, old) {
			return false
		}
		var alone []*device
		for i := range s.gateways {
			alone = append(alone, s.login(t, i, randomName()))
		}
		s.runOut(t, append(alone, old)...)
		newest := s.login(t, 1, old.id)
		if !s.uploadKeys(t, newest) {
			return false
		}
		for _, d := range alone {
			inUse := true
			eventually(t, "a device without a session is forgotten", func() bool {
				inUse = s.alive(t, newest)
				return !inUse || !s.homeserver.has(t, d)
			})
			if !inUse {
				return false
			}
		}
		if !s.only(t, newest, old) || !s.finish(t) {
			return false
		}
		for _, d := range alone {
			for _, g := range s.gateways {
				s.over(t, d, g)
			}
		}
		s.gone(t, newest) // no longer in use
		return true
	})
}
