package gateway

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/testkit"
)

const testWait = 10 * time.Second

// inBubble runs a test in a world with the clock of testing/synctest and the gateway's own
// timeouts.
func inBubble(t *testing.T, test func(*testing.T, *world), change ...func(*world)) {
	t.Helper()
	bubble(t, test, append(change, func(w *world) {
		w.cfg.timeouts = defaultTimeouts()
		w.cfg.timeouts.wait = testWait
	})...)
}

// bubble runs a test in a world with the clock of testing/synctest.
func bubble(t *testing.T, test func(*testing.T, *world), change ...func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := testkit.NewPipes()
		w := newWorldOf(&world{t: t, pipes: p}, append(change, func(w *world) { w.cfg.dial = p.Dial })...)
		t.Cleanup(p.Transport().CloseIdleConnections)
		testkit.NoError(t, w.gateway.feed.WaitCurrent(t.Context()))
		test(t, w)
	})
}

// later sends a request. The channel receives the response.
func (w *world) later(method, path, token string, body any) <-chan answer {
	out := make(chan answer, 1)
	req := w.request(method, path, token, body)
	go func() { out <- w.send(req) }()
	return out
}

// waiting fails unless a request is waiting for the service.
func (w *world) waiting(out <-chan answer) {
	w.t.Helper()
	synctest.Wait()
	select {
	case a := <-out:
		w.t.Fatalf("answered %d %s", a.status, a.raw)
	default:
	}
}

// leave makes the service unreachable.
func (w *world) leave() {
	w.down.Store(true)
	w.service.CloseClientConnections()
	synctest.Wait()
}

// A request that needs the service waits until the feed has reconnected. The service
// receives few requests meanwhile, for any number of waiting requests.
func TestWaitForService(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		token := w.login(false).text("access_token")
		time.Sleep(testTTL)
		w.leave()
		asked := w.refused.Load()
		var all []<-chan answer
		for range 50 {
			all = append(all, w.later("GET", upstream.PathWhoami, token, nil))
		}
		time.Sleep(testWait * 3 / 4)
		for _, out := range all {
			w.waiting(out)
		}
		if n := w.gateway.service.Waiting.Size(); n != len(all) {
			t.Errorf("%d requests are waiting", n)
		}
		if n := w.refused.Load() - asked; n < 3 || n > 40 {
			t.Errorf("%d requests to the service", n)
		}
		start := time.Now()
		w.down.Store(false)
		for _, out := range all {
			w.want(<-out, 200, "")
		}
		if took := time.Since(start); took > service.MaxRetryInterval {
			t.Errorf("waited %v after the outage", took)
		}
		if n := w.gateway.service.Waiting.Size(); n != 0 {
			t.Errorf("%d requests are still waiting", n)
		}
	})
}

// The log has the beginning and the end of an outage, once each, with or without
// requests meanwhile. A feed that ends and reconnects is no outage.
func TestOutageIsLogged(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		const begin, end = "service is unavailable, retrying", "service is available again"
		count := func(want int) {
			t.Helper()
			for _, line := range []string{begin, end} {
				if n := strings.Count(w.log.String(), line); n != want {
					t.Errorf("%d lines %q, want %d", n, line, want)
				}
			}
		}
		count(0)
		for i := range 2 {
			w.leave()
			time.Sleep(time.Minute)
			w.down.Store(false)
			time.Sleep(time.Minute)
			synctest.Wait()
			count(i + 1)
		}
		if !strings.Contains(w.log.String(), `"outage":`) {
			t.Errorf("log without the length of the outage: %s", w.log.String())
		}
	})
}

// No request waits for longer than ten seconds.
func TestWaitEnds(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		held, rotate := w.login(false).text("access_token"), w.login(true)
		time.Sleep(testTTL)
		w.leave()
		before := w.hs.count()
		for _, c := range []struct {
			name, method, path, token string
			body                      any
		}{
			{"held", "GET", upstream.PathWhoami, held, nil},
			{"rotate, expired", "GET", upstream.PathWhoami, rotate.text("access_token"), nil},
			{"refresh", "POST", pathRefresh, "", anyMap{"refresh_token": rotate.text("refresh_token")}},
			{"login", "POST", pathLogin, "", anyMap{"type": "m.login.password", "user": "@u:hs"}},
			{"register", "POST", "/_matrix/client/v3/register", "", anyMap{"username": "new"}},
		} {
			start := time.Now()
			a := w.do(c.method, c.path, c.token, c.body)
			if took := time.Since(start); a.status != 503 || a.header.Get("Retry-After") == "" || took < testWait || took > testWait+time.Second {
				t.Errorf("%s: %d %s after %v", c.name, a.status, a.raw, took)
			}
			if plain := a.body == nil; plain != (c.path == pathRefresh) {
				t.Errorf("%s: %s", c.name, a.raw)
			}
		}
		// Only the check of the session's token reaches the homeserver.
		for _, r := range w.hs.requests[before:] {
			if r.URI != upstream.PathWhoami || r.Token == "" {
				t.Errorf("forwarded: %s %s", r.Method, r.URI)
			}
		}
		if lines := strings.Count(w.log.String(), "service is unavailable, request answered 503"); lines < 1 || lines > 10 {
			t.Errorf("%d lines of log", lines)
		}
	})
}

// An access token that expired during an outage of the service is reported as expired
// once its client has had time to refresh it.
func TestExpiredDuringOutage(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		in := w.login(true)
		time.Sleep(testTTL - time.Second)
		w.leave()
		time.Sleep(2 * time.Second)
		use := w.later("GET", upstream.PathWhoami, in.text("access_token"), nil)
		refresh := w.later("POST", pathRefresh, "", anyMap{"refresh_token": in.text("refresh_token")})
		time.Sleep(testWait / 2)
		w.waiting(use)
		w.waiting(refresh)
		w.down.Store(false)
		w.want(<-use, 503, matrix.CodeUnknown)
		next := w.want(<-refresh, 200, "")
		w.want(w.do("GET", upstream.PathWhoami, next.text("access_token"), nil), 200, "")
		time.Sleep(service.RefreshGrace)
		if a := w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 401, matrix.CodeUnknownToken); !a.soft() {
			t.Errorf("%s", a.raw)
		}
		// A token that expires while the service is available is expired at once.
		time.Sleep(testTTL)
		if a := w.want(w.do("GET", upstream.PathWhoami, next.text("access_token"), nil), 401, matrix.CodeUnknownToken); !a.soft() {
			t.Errorf("%s", a.raw)
		}
	})
}

// A session known to have ended is refused without waiting, and a revocation that
// arrives ends the wait.
func TestEndWhileWaiting(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		known, revoked := w.login(false).text("access_token"), w.login(false).text("access_token")
		w.want(w.do("POST", upstream.PathLogout, known, anyMap{}), 200, "")
		id := w.sessionOf(revoked)
		time.Sleep(testTTL)
		w.leave()
		start := time.Now()
		w.want(w.do("GET", upstream.PathWhoami, known, nil), 401, matrix.CodeUnknownToken)
		if took := time.Since(start); took > 0 {
			t.Errorf("waited %v for a known end", took)
		}
		out := w.later("GET", upstream.PathWhoami, revoked, nil)
		time.Sleep(testWait / 4)
		w.waiting(out)
		w.gateway.outbox.Revoked(revocation.Event{Session: id, User: "@u:hs", At: time.Now(), Soft: true, Reason: revocation.CauseRevoked})
		a := w.want(<-out, 401, matrix.CodeUnknownToken)
		if took := time.Since(start); !a.soft() || took > testWait/2 {
			t.Errorf("%s after %v", a.raw, took)
		}
	})
}

// Drain answers waiting requests.
func TestDrain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		token := w.login(false).text("access_token")
		time.Sleep(testTTL)
		w.leave()
		out := w.later("GET", upstream.PathWhoami, token, nil)
		time.Sleep(time.Second)
		w.waiting(out)
		start := time.Now()
		w.gateway.Drain()
		w.gateway.Drain()
		w.want(<-out, 503, matrix.CodeUnknown)
		w.want(w.do("GET", upstream.PathWhoami, token, nil), 503, matrix.CodeUnknown)
		if took := time.Since(start); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

// A login waits if the service became unavailable after the homeserver accepted it, and
// ends no session that it cannot replace.
func TestLoginWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		w.hs.dendrite = true
		old := w.login(false, anyMap{"device_id": "MINE"}).text("access_token")
		w.leave() // just after the service confirmed that it can decide
		out := w.later("POST", pathLogin, "", anyMap{"type": "m.login.password", "user": "@u:hs", "password": "secret"})
		time.Sleep(testWait / 2)
		w.waiting(out)
		w.down.Store(false)
		in := w.want(<-out, 200, "")
		w.want(w.do("GET", upstream.PathWhoami, in.text("access_token"), nil), 200, "")
		w.leave()
		time.Sleep(service.ReadyFor)
		w.want(w.do("POST", pathLogin, "", anyMap{"type": "m.login.password", "user": "@u:hs", "password": "secret", "device_id": "MINE"}), 503, matrix.CodeUnknown)
		w.want(w.do("GET", upstream.PathWhoami, old, nil), 200, "")
	})
}

// Any number of logins cause one readiness request to the service per second.
func TestReadinessIsCached(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		for range 3 {
			time.Sleep(service.ReadyFor)
			before := w.ready.Load()
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() { w.login(false) })
			}
			all.Wait()
			if n := w.ready.Load() - before; n != 1 {
				t.Errorf("%d readiness requests", n)
			}
		}
	})
}

// For a service of an earlier version without readiness, its store is read instead.
func TestReadinessOfEarlierService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.withoutReady = true })
	w.login(false)
	w.down.Store(true)
	w.forward(service.ReadyFor)
	w.want(w.do("POST", pathLogin, "", anyMap{}), 503, matrix.CodeUnknown)
}
