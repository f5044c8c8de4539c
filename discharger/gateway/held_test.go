package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/upstream"
)

// landed waits until no discharge of a session is being fetched, and returns the one in
// use.
func (w *world) landed(id caveat.SessionID) service.Times {
	for {
		t, fetching := w.gateway.service.Discharges.Peek(id)
		if fetching == nil {
			return t
		}
		<-fetching
	}
}

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
			w := newWorld(t, func(w *world) {
				w.cfg.jitter = func() float64 { return c.jitter }
				w.stopped = time.Now()
			})
			in := w.login(false)
			token, before := in.text("access_token"), w.asked.Load()
			id := w.sessionOf(token)
			for ahead := c.rhythm; ahead <= lifetimes*testTTL; ahead += c.rhythm {
				w.forward(c.rhythm)
				if d, _ := w.gateway.service.Discharges.Peek(id); !w.now().Before(d.Until) {
					t.Fatalf("at %v a request has to wait for a discharge", ahead)
				}
				w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
				w.landed(id)
			}
			fetches := int(w.asked.Load() - before)
			most := 1 + int(lifetimes*testTTL/(testTTL-service.RefreshAhead-service.Margin(testTTL)))
			t.Logf("%d fetches in %d lifetimes", fetches, lifetimes)
			if fetches < lifetimes || fetches > most {
				t.Errorf("%d fetches in %d lifetimes, want up to %d", fetches, lifetimes, most)
			}
		})
	}
}

// A fetch after failures, or long after the discharge expired, is spread; a slightly
// late one is not.
func TestWhichFetchesAreSpread(t *testing.T) {
	t.Parallel()
	jitter := 0.0
	w := newWorld(t, func(w *world) { w.cfg.jitter = func() float64 { return jitter } })
	token := w.login(false).text("access_token")
	id := w.sessionOf(token)
	for _, c := range []struct {
		name   string
		wait   time.Duration
		down   bool
		spread bool
	}{
		{"first, after the login", testTTL / 2, false, false},
		{"ahead of need", testTTL - service.RefreshAhead, false, false},
		{"a little late", testTTL + time.Second, false, false},
		{"long after", 2 * testTTL, false, true},
		{"ahead of need, after an outage", testTTL * 3 / 4, true, true},
		{"ahead of need again", testTTL / 2, false, false},
	} {
		w.forward(c.wait)
		if c.down {
			w.down.Store(true)
			w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
			w.landed(id)
			w.down.Store(false)
			w.forward(2 * time.Second)
		}
		before := w.asked.Load()
		w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
		d := w.landed(id)
		if w.asked.Load() != before+1 {
			t.Fatalf("%s: not fetched", c.name)
		}
		if spread := d.Refresh.Sub(d.Since) < testTTL*2/3; spread != c.spread {
			t.Errorf("%s: fetched again after %v", c.name, d.Refresh.Sub(d.Since))
		}
	}
}
