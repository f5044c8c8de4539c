package gateway

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// The discharge of a session in use is fetched once per lifetime less the refresh
// margin, and once more after a login. A client that polls every 30 seconds never waits
// for it.
func TestFetchesPerLifetime(t *testing.T) {
	t.Parallel()
	const lifetimes = 10
	for _, c := range []struct {
		jitter float64
		rhythm time.Duration
	}{{0, service.RefreshAhead}, {0.5, service.RefreshAhead * 2 / 3}, {0.999, service.RefreshAhead}} {
		t.Run(fmt.Sprintf("jitter %v, every %v", c.jitter, c.rhythm), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, w *world) {
				in := w.login(false)
				token, before := in.text("access_token"), w.asked.Load()
				for ahead := c.rhythm; ahead <= lifetimes*testTTL; ahead += c.rhythm {
					w.forward(c.rhythm)
					h := &held{make(chan struct{}), make(chan struct{})}
					w.holding.Store(h)
					out := w.later("GET", upstream.PathWhoami, token, nil)
					synctest.Wait()
					select {
					case a := <-out:
						w.want(a, 200, "")
					default:
						t.Errorf("at %v a request has to wait for a discharge", ahead)
					}
					w.holding.Store(nil)
					close(h.release)
					synctest.Wait()
				}
				fetches := int(w.asked.Load() - before)
				most := 1 + int(lifetimes*testTTL/(testTTL-service.RefreshAhead-service.Margin(testTTL)))
				t.Logf("%d fetches in %d lifetimes", fetches, lifetimes)
				if fetches < lifetimes || fetches > most {
					t.Errorf("%d fetches in %d lifetimes, want up to %d", fetches, lifetimes, most)
				}
			}, func(w *world) { w.cfg.jitter = func() float64 { return c.jitter } })
		})
	}
}

// A fetch after failures, or long after the discharge expired, is spread; a slightly
// late one is not.
func TestWhichFetchesAreSpread(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		token := w.login(false).text("access_token")
		get := func() (fetched bool) {
			before := w.asked.Load()
			w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
			synctest.Wait()
			return w.asked.Load() > before
		}
		const usual, probe = testTTL - service.RefreshAhead, testTTL * 2 / 3
		since := time.Duration(0) // the last fetch
		for _, c := range []struct {
			name   string
			wait   time.Duration // since the last fetch
			down   bool
			spread bool
		}{
			{"first, after the login", testTTL / 2, false, false},
			{"ahead of need", usual, false, false},
			{"a little late", testTTL + time.Second, false, false},
			{"long after", 2 * testTTL, false, true},
			{"ahead of need, after an outage", usual, true, true},
			{"ahead of need again", usual, false, false},
		} {
			w.forward(c.wait - since)
			if c.down {
				w.down.Store(true)
				get()
				w.down.Store(false)
				w.forward(2 * time.Second)
			}
			if !get() {
				t.Fatalf("%s: not fetched", c.name)
			}
			w.forward(probe)
			spread := get() // another, early
			if since = probe; spread {
				since = 0
			}
			if spread != c.spread {
				t.Errorf("%s: fetched again after %v: %v", c.name, probe, spread)
			}
		}
	}, func(w *world) { w.cfg.jitter = func() float64 { return 0 } })
}
