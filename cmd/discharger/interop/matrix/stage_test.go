package matrix

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

// stage is a user whose clients log in on devices of one name, before a deployment
// shared with other tests.
type stage struct {
	*deployment
	user   *user
	rotate bool // the clients refresh
	rounds int
	played []outcome
}

// outcome is a device after a round: one session is alive, and older ones have ended.
type outcome struct {
	newest *device
	older  []*device
}

func (d *deployment) newStage(t *testing.T, rotate bool) *stage {
	t.Helper()
	return &stage{deployment: d, user: d.newUser(t), rotate: rotate, rounds: testRounds(t)}
}

// request returns the body of a login on a device.
func (s *stage) request(name string) body {
	b := body{"device_id": name}
	if s.rotate {
		b["refresh_token"] = true
	}
	return b
}

// site returns one gateway's address; i counts on.
func (s *stage) site(i int) *site { return &s.gateways[i%len(s.gateways)].site }

// login logs in on a device at a gateway.
func (s *stage) login(t *testing.T, i int, name string) *device {
	t.Helper()
	d := s.user.at(s.site(i)).login(t, s.request(name))
	if d.id != name {
		t.Fatalf("logged in on device %s, want %s", d.id, name)
	}
	d.used = d.requested
	return d
}

// loginAtOnce logs in n times on a device, at all gateways.
func (s *stage) loginAtOnce(t *testing.T, n int, name string) []*device {
	t.Helper()
	answers, errs := make([]answer, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { answers[i], errs[i] = s.user.at(s.site(i)).tryLogin(s.request(name)) })
	}
	wg.Wait()
	all := make([]*device, n)
	for i, a := range answers {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		all[i] = &device{user: s.user.at(s.site(i)), id: name, used: a.requested}
		all[i].take(t, a.ok(t))
	}
	return all
}

// decided repeats a request until the answer is a decision: not a 5xx.
func decided(t *testing.T, request func() answer) (a answer) {
	t.Helper()
	eventually(t, "a request is decided", func() bool {
		a = request()
		return a.status < 500
	})
	return a
}

// alive fails the test unless a session is alive. It returns false if the
// session may have been idle for too long, since the machine paused.
func (s *stage) alive(t *testing.T, d *device) bool {
	t.Helper()
	now := time.Now()
	a := decided(t, func() answer { return d.whoami(t) })
	if s.idledOut(d, a) {
		return false
	}
	if a.ok(t).body.text("user_id") != d.user.id() || a.body.text("device_id") != d.id {
		t.Fatalf("another device: %s", a.raw)
	}
	d.used = now
	return true
}

// idledOut reports whether an answer is the end of a session that was idle for too
// long because the machine paused.
func (s *stage) idledOut(d *device, a answer) bool {
	return a.status == http.StatusUnauthorized && a.body["soft_logout"] == true && s.paused(d)
}

// paused reports whether a session may have been idle for too long.
func (s *stage) paused(d *device) bool { return s.idle > 0 && time.Since(d.used) >= s.idle-s.ttl }

// uploadKeys uploads identity keys of a device. It returns false if its session was
// idle for too long.
func (s *stage) uploadKeys(t *testing.T, d *device) bool {
	t.Helper()
	now := time.Now()
	a := d.tryUploadKeys(t)
	if s.idledOut(d, a) {
		return false
	}
	a.ok(t)
	d.used = now
	return true
}

// kept fails the test unless the homeserver has the device, with its keys. It returns
// false if it has not and the session was idle for too long.
func (s *stage) kept(t *testing.T, d *device) bool {
	t.Helper()
	has, key := s.homeserver.has(t, d), s.homeserver.identityKey(t, d)
	switch {
	case has && key == d.key:
		return true
	case s.forget > 0 && s.paused(d):
		return false
	}
	t.Fatalf("the homeserver has the device: %t; its key is %q, want %q", has, key, d.key)
	return false
}

// gone waits until the homeserver has neither the device, nor keys or tokens of
// it.
func (s *stage) gone(t *testing.T, d *device) {
	t.Helper()
	eventually(t, "the device is gone from the homeserver", func() bool { return !s.homeserver.has(t, d) })
	eventually(t, "its keys are gone", func() bool { return s.homeserver.identityKey(t, d) == "" })
	if n := len(s.homeserver.tokens(t, d)); n > 0 {
		t.Fatalf("the homeserver has %d tokens of the device", n)
	}
}

// anyAccepted fails the test unless the homeserver accepts a token of the device.
func (s *stage) anyAccepted(t *testing.T, d *device) {
	t.Helper()
	tokens := s.homeserver.tokens(t, d)
	for _, token := range tokens {
		if s.homeserver.accepts(t, token) {
			return
		}
	}
	t.Fatalf("the homeserver accepts none of %d tokens of the device", len(tokens))
}

// over waits until a gateway refuses a session softly. A hard refusal fails the
// test.
func (s *stage) over(t *testing.T, d *device, g *gateway) {
	t.Helper()
	d.through(&g.site)
	eventually(t, "an older session is over", func() bool {
		a := decided(t, func() answer { return d.asIs(t) })
		if a.status == http.StatusOK {
			return false
		}
		a.over(t)
		return true
	})
	if d.refresh != "" {
		decided(t, func() answer { return d.refreshed(t) }).over(t)
	}
}

// only fails the test unless the newest session is alive, with its device, and the
// older ones end, at every gateway. It returns false if the newest may have been idle
// for too long.
func (s *stage) only(t *testing.T, newest *device, older ...*device) bool {
	t.Helper()
	for _, g := range s.gateways {
		for _, d := range older {
			s.over(t, d, g)
		}
		if !s.alive(t, newest.through(&g.site)) {
			return false
		}
	}
	if !s.kept(t, newest) {
		return false
	}
	s.anyAccepted(t, newest)
	s.played = append(s.played, outcome{newest, older})
	return true
}

// finish checks every outcome again, after the gateways have made their pending
// logouts. It returns false if a session may have been idle for too long.
func (s *stage) finish(t *testing.T) bool {
	t.Helper()
	s.settle(t)
	for _, o := range s.played {
		if s.rotate && s.idle == 0 {
			a := decided(t, func() answer { return o.newest.refreshed(t) })
			o.newest.take(t, a.ok(t))
		}
		if !s.alive(t, o.newest) {
			return false
		}
		if !s.kept(t, o.newest) {
			return false
		}
		for _, d := range o.older {
			for _, g := range s.gateways {
				s.over(t, d, g)
			}
		}
	}
	return true
}

// survivor waits until at most one of the sessions that began at once is alive,
// and returns it with the others. It may be nil before several gateways where a
// login ends older tokens: the service and the homeserver may process the logins
// in different orders. Then one session is current at the service and has a token
// that the homeserver ended. Its client gets the homeserver's answer, which is
// hard before Dendrite, and it is not among the others.
func (s *stage) survivor(t *testing.T, all []*device) (newest *device, older []*device) {
	t.Helper()
	mayBeNone := len(s.gateways) > 1 && !s.homeserver.kind.keepsOld
	eventually(t, "one session at most is alive", func() bool {
		var live, lost []*device
		older = nil
		for _, d := range all {
			a := decided(t, func() answer { return d.whoami(t) })
			switch {
			case a.status == http.StatusOK:
				live = append(live, d)
			case mayBeNone && a.body["soft_logout"] != true:
				a.want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
				lost = append(lost, d)
			default:
				a.over(t)
				older = append(older, d)
			}
		}
		if len(live) > 1 {
			return false
		}
		if len(live)+len(lost) > 1 {
			t.Fatalf("of %d sessions %d were ended hard, and %d are alive", len(all), len(lost), len(live))
		}
		if len(live) == 0 && !mayBeNone {
			t.Fatalf("of %d sessions none is alive", len(all))
		}
		if len(live) == 1 {
			newest = live[0]
		}
		return true
	})
	return newest, older
}

// runOut waits until the sessions have been idle for too long.
func (s *stage) runOut(t *testing.T, all ...*device) {
	t.Helper()
	for left := all; len(left) > 0; {
		time.Sleep(s.idle + time.Second) // a check of a session is a use of it
		var again []*device
		for _, d := range left {
			a := decided(t, func() answer {
				if s.rotate {
					return d.refreshed(t)
				}
				return d.asIs(t)
			})
			if a.status != http.StatusOK {
				a.over(t)
				continue
			}
			if s.rotate {
				d.take(t, a)
			}
			again = append(again, d)
		}
		left = again
	}
}
