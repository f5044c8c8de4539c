package gateway

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
)

// landed waits until no discharge of a session is being fetched, and gives the
// one in use.
func (w *world) landed(id caveat.SessionID) *discharged {
	w.t.Helper()
	s := w.gateway.held.session(id)
	eventually(w.t, "the discharge is there", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.flight == nil
	})
	return s.current.Load()
}

// A session in use has its discharge fetched once in its lifetime less the time
// ahead of need, and once more after a login. A client that comes every half
// minute, as those do that wait for news, never has to wait for it.
func TestFetchesPerLifetime(t *testing.T) {
	t.Parallel()
	const lifetimes = 10
	for _, c := range []struct {
		jitter float64
		rhythm time.Duration
	}{{0, aheadOf}, {0.5, aheadOf * 2 / 3}, {0.999, aheadOf}} {
		w := newWorld(t, func(w *world) {
			w.cfg.Jitter = func() float64 { return c.jitter }
			w.stopped = time.Now()
		})
		in := w.login(false)
		token, before := in.text("access_token"), w.asked.Load()
		id := w.sessionOf(token)
		for ahead := c.rhythm; ahead <= lifetimes*testTTL; ahead += c.rhythm {
			w.forward(c.rhythm)
			if d := w.gateway.held.session(id).current.Load(); !w.now().Before(d.until) {
				t.Fatalf("jitter %v, every %v: at %v a request has to wait for a discharge", c.jitter, c.rhythm, ahead)
			}
			w.want(w.do("GET", pathWhoami, token, nil), 200, "")
			w.landed(id)
		}
		fetches := int(w.asked.Load() - before)
		most := 1 + int(lifetimes*testTTL/(testTTL-aheadOf-margin(testTTL)))
		t.Logf("jitter %v, every %v: %d fetches in %d lifetimes", c.jitter, c.rhythm, fetches, lifetimes)
		if fetches < lifetimes || fetches > most {
			t.Errorf("jitter %v, every %v: %d fetches in %d lifetimes, want up to %d", c.jitter, c.rhythm, fetches, lifetimes, most)
		}
	}
}

// Those who all got a discharge at the same moment, at a login or when the
// service was back, come again spread over a third of its life. Those who came
// ahead of need are spread already, and stay so.
func TestFetchesAreSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // time stands still
		jitter := 0.0
		now := time.Now()
		g := &Gateway{cfg: Config{CacheBytes: defaultCacheBytes, Clock: func() time.Time { return now }, Jitter: func() float64 { return jitter }}}
		h, err := newHeldSessions(g)
		must(t, err)
		for _, life := range []time.Duration{time.Minute, 2 * time.Minute, 5 * time.Minute, time.Hour} {
			grant := client.Grant{Expires: now.Add(life)}
			latest := h.keep(grant, true).refresh
			jitter = 0
			first := h.keep(grant, false).refresh
			jitter = 0.999999
			last := h.keep(grant, false).refresh
			if early := first.Sub(now); early < life/2 {
				t.Errorf("%v: fetched again after %v", life, early)
			}
			if width := last.Sub(first); width < life/5 || last.After(latest) {
				t.Errorf("%v: spread over %v, until %v", life, width, last.Sub(now))
			}
			if ahead := now.Add(life).Sub(latest); ahead > life/4 || ahead < min(life/4, aheadOf) {
				t.Errorf("%v: fetched %v ahead of need", life, ahead)
			}
			if !latest.Before(h.keep(grant, true).until) {
				t.Errorf("%v: not ahead of need", life)
			}
		}
	})
}

// A fetch that comes after failures, or long after the discharge has run out, is
// spread; one a little late is not.
func TestWhichFetchesAreSpread(t *testing.T) {
	t.Parallel()
	jitter := 0.0
	w := newWorld(t, func(w *world) { w.cfg.Jitter = func() float64 { return jitter } })
	token := w.login(false).text("access_token")
	id := w.sessionOf(token)
	for _, c := range []struct {
		name   string
		wait   time.Duration
		down   bool
		spread bool
	}{
		{"first, after the login", testTTL / 2, false, false},
		{"ahead of need", testTTL - aheadOf, false, false},
		{"a little late", testTTL + time.Second, false, false},
		{"long after", 2 * testTTL, false, true},
		{"ahead of need, after an outage", testTTL * 3 / 4, true, true},
		{"ahead of need again", testTTL / 2, false, false},
	} {
		w.forward(c.wait)
		if c.down {
			w.down.Store(true)
			w.want(w.do("GET", pathWhoami, token, nil), 200, "")
			w.landed(id)
			w.down.Store(false)
			w.forward(2 * time.Second)
		}
		before := w.asked.Load()
		w.want(w.do("GET", pathWhoami, token, nil), 200, "")
		d := w.landed(id)
		if w.asked.Load() != before+1 {
			t.Fatalf("%s: not fetched", c.name)
		}
		if spread := d.refresh.Sub(d.since) < testTTL*2/3; spread != c.spread {
			t.Errorf("%s: fetched again after %v", c.name, d.refresh.Sub(d.since))
		}
	}
}
