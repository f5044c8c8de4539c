package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

const testWait = 10 * time.Second

// inBubble plays a test in a world whose clock stands still while anything runs.
func inBubble(t *testing.T, test func(*testing.T, *world), change ...func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		w := newWorldOf(&world{t: t, pipes: p}, append(change, func(w *world) {
			w.cfg.dial = p.dial
			w.cfg.patience = usualPatience()
			w.cfg.patience.wait = testWait
		})...)
		t.Cleanup(p.client.CloseIdleConnections)
		must(t, w.gateway.feed.WaitCurrent(t.Context()))
		test(t, w)
	})
}

// later sends a request. The channel receives what came of it.
func (w *world) later(method, path, token string, body any) <-chan answer {
	out := make(chan answer, 1)
	req := w.request(method, path, token, body)
	go func() { out <- w.send(req) }()
	return out
}

// waiting fails the test unless a request is waiting for the service.
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

// A request that needs the service waits until it is back, and the feed finds that
// out. The service gets few questions meanwhile, however many requests wait.
func TestWait(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		token := w.login(false).text("access_token")
		time.Sleep(testTTL)
		w.leave()
		asked := w.refused.Load()
		var all []<-chan answer
		for range 50 {
			all = append(all, w.later("GET", pathWhoami, token, nil))
		}
		time.Sleep(testWait * 3 / 4)
		for _, out := range all {
			w.waiting(out)
		}
		if n := w.gateway.room.size(); n != len(all) {
			t.Errorf("%d requests wait", n)
		}
		if n := w.refused.Load() - asked; n < 3 || n > 40 {
			t.Errorf("the service was asked %d times", n)
		}
		start := time.Now()
		w.down.Store(false)
		for _, out := range all {
			w.want(<-out, 200, "")
		}
		if took := time.Since(start); took > maxRetryPause {
			t.Errorf("waited %v after the service was back", took)
		}
		if n := w.gateway.room.size(); n != 0 {
			t.Errorf("%d requests wait still", n)
		}
	})
}

// The log has the beginning and the end of an outage, once each, whether or not
// clients ask meanwhile. A feed that ends and connects again is no outage.
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
			t.Errorf("the log does not have how long it was: %s", w.log.String())
		}
	})
}

// Nothing waits for longer than ten seconds.
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
			{"held", "GET", pathWhoami, held, nil},
			{"rotate, which has run out", "GET", pathWhoami, rotate.text("access_token"), nil},
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
		// The homeserver is asked whether it knows a session's token, and nothing else.
		for _, r := range w.hs.requests[before:] {
			if r.URI != pathWhoami || r.Token == "" {
				t.Errorf("passed on: %s %s", r.Method, r.URI)
			}
		}
		if lines := strings.Count(w.log.String(), "service is unavailable, request answered 503"); lines < 1 || lines > 10 {
			t.Errorf("%d lines of log", lines)
		}
	})
}

// An access token that ran out while the service was away is called expired when its
// holder has had time to refresh it.
func TestRanOutWhileAway(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		in := w.login(true)
		time.Sleep(testTTL - time.Second)
		w.leave()
		time.Sleep(2 * time.Second)
		use := w.later("GET", pathWhoami, in.text("access_token"), nil)
		refresh := w.later("POST", pathRefresh, "", anyMap{"refresh_token": in.text("refresh_token")})
		time.Sleep(testWait / 2)
		w.waiting(use)
		w.waiting(refresh)
		w.down.Store(false)
		w.want(<-use, 503, codeUnknown)
		next := w.want(<-refresh, 200, "")
		w.want(w.do("GET", pathWhoami, next.text("access_token"), nil), 200, "")
		time.Sleep(renewGrace)
		if a := w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 401, codeUnknownToken); !a.soft() {
			t.Errorf("%s", a.raw)
		}
		// One that runs out while the service is there is expired at once.
		time.Sleep(testTTL)
		if a := w.want(w.do("GET", pathWhoami, next.text("access_token"), nil), 401, codeUnknownToken); !a.soft() {
			t.Errorf("%s", a.raw)
		}
	})
}

// A session whose end is known is refused without waiting, and one that ends while
// its request waits ends that.
func TestEndWhileWaiting(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		known, revoked := w.login(false).text("access_token"), w.login(false).text("access_token")
		w.want(w.do("POST", pathLogout, known, anyMap{}), 200, "")
		id := w.sessionOf(revoked)
		time.Sleep(testTTL)
		w.leave()
		start := time.Now()
		w.want(w.do("GET", pathWhoami, known, nil), 401, codeUnknownToken)
		if took := time.Since(start); took > 0 {
			t.Errorf("waited %v for a known end", took)
		}
		out := w.later("GET", pathWhoami, revoked, nil)
		time.Sleep(testWait / 4)
		w.waiting(out)
		w.gateway.revoked(wire.Revocation{Session: id, User: "@u:hs", At: time.Now(), Soft: true, Reason: wire.RevokedOrder})
		a := w.want(<-out, 401, codeUnknownToken)
		if took := time.Since(start); !a.soft() || took > testWait/2 {
			t.Errorf("%s after %v", a.raw, took)
		}
	})
}

// Before it is shut down, a gateway answers what waits.
func TestDrain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		token := w.login(false).text("access_token")
		time.Sleep(testTTL)
		w.leave()
		out := w.later("GET", pathWhoami, token, nil)
		time.Sleep(time.Second)
		w.waiting(out)
		start := time.Now()
		w.gateway.Drain()
		w.gateway.Drain()
		w.want(<-out, 503, codeUnknown)
		w.want(w.do("GET", pathWhoami, token, nil), 503, codeUnknown)
		if took := time.Since(start); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

// A session is begun although the service went away between the question and the
// homeserver's answer, and a login does not end a session that it cannot replace.
func TestLoginWaits(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		w.hs.dendrite = true
		old := w.login(false, anyMap{"device_id": "MINE"}).text("access_token")
		w.leave() // a moment after it was asked
		out := w.later("POST", pathLogin, "", anyMap{"type": "m.login.password", "user": "@u:hs", "password": "secret"})
		time.Sleep(testWait / 2)
		w.waiting(out)
		w.down.Store(false)
		in := w.want(<-out, 200, "")
		w.want(w.do("GET", pathWhoami, in.text("access_token"), nil), 200, "")
		w.leave()
		time.Sleep(ableLife)
		w.want(w.do("POST", pathLogin, "", anyMap{"type": "m.login.password", "user": "@u:hs", "password": "secret", "device_id": "MINE"}), 503, codeUnknown)
		w.want(w.do("GET", pathWhoami, old, nil), 200, "")
	})
}

// However many log in, the service is asked once a second whether it can decide.
func TestAskedOnce(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, w *world) {
		for range 3 {
			time.Sleep(ableLife)
			before := w.ready.Load()
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() { w.login(false) })
			}
			all.Wait()
			if n := w.ready.Load() - before; n != 1 {
				t.Errorf("asked %d times", n)
			}
		}
	})
}

// The waiting room has room for some of one address, for some of one site, and for some without a token.
func TestWaitingRoom(t *testing.T) {
	t.Parallel()
	r := newWaitingRoom()
	addr := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::%d", i, i+1)) }
	var exits []func()
	enter := func(a netip.Addr, open bool) error {
		exit, err := r.enter(peerOf(a), open)
		if err == nil {
			exits = append(exits, exit)
		}
		return err
	}
	for i := range waitersPerClient {
		must(t, enter(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)), false)) // of one /64
	}
	if err := enter(netip.MustParseAddr("2001:db8::ffff"), false); !errors.Is(err, errWaiters) {
		t.Errorf("one address: %v", err)
	}
	for i := range waitersPerSite - waitersPerClient {
		must(t, enter(netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::1", 1+i)), false)) // of one /48
	}
	if err := enter(netip.MustParseAddr("2001:db8:0:ffff::1"), false); !errors.Is(err, errWaiters) {
		t.Errorf("one site: %v", err)
	}
	for i := range maxOpenWaiters {
		must(t, enter(addr(1+i/waitersPerClient), true))
	}
	if err := enter(addr(1000), true); !errors.Is(err, errWaiters) {
		t.Errorf("without tokens: %v", err)
	}
	for i := range maxWaiters - maxOpenWaiters - waitersPerSite {
		must(t, enter(addr(100+i/waitersPerClient), false))
	}
	if err := enter(addr(1000), false); !errors.Is(err, errWaiters) {
		t.Errorf("in all: %v", err)
	}
	for _, exit := range exits {
		exit()
	}
	if r.all != 0 || r.open != 0 || len(r.clients) != 0 {
		t.Errorf("left: %d, %d, %d", r.all, r.open, len(r.clients))
	}
}

// A request that waits has no place among those in flight, and one that finds none
// afterwards does not go on.
func TestWaiterHasNoPlace(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full %v", full), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := &Gateway{link: newLink(func() float64 { return 0.5 }, time.Now), room: newWaitingRoom()}
				l := newLimiter(Limits{Requests: 1}, time.Now)
				var p, other place
				c := netip.MustParseAddr("192.0.2.1")
				l.take(&p, peerOf(c), brief)
				var calls int
				w := waiter{peer: peerOf(c), place: &p, until: time.Now().Add(testWait)}
				value, err := pursue(t.Context(), g, w, func(context.Context) (int, error) {
					if calls++; calls == 4 {
						return 7, nil
					}
					switch n := l.busy(brief); {
					case n != 0 && calls == 2:
						t.Errorf("%d places are taken while it waits", n)
					case full && calls == 2:
						l.take(&other, peerOf(c), brief)
					}
					return 0, &client.UnavailableError{Err: http.ErrServerClosed}
				})
				if full {
					if !errors.Is(err, client.ErrUnavailable) || p.taken {
						t.Errorf("%v, %d places", err, l.busy(brief))
					}
				} else if err != nil || value != 7 || l.busy(brief) != 1 {
					t.Errorf("%d, %v, %d places", value, err, l.busy(brief))
				}
			})
		})
	}
}

// A call that nobody waits for any more is not repeated.
func TestPursuitIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{link: newLink(func() float64 { return 0.5 }, time.Now), room: newWaitingRoom()}
		var calls atomic.Int64
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		w := waiter{place: new(place), until: time.Now().Add(testWait)}
		_, err := pursue(ctx, g, w, func(context.Context) (struct{}, error) {
			calls.Add(1)
			return struct{}{}, &client.UnavailableError{Err: http.ErrServerClosed}
		})
		n := calls.Load()
		if !errors.Is(err, context.DeadlineExceeded) || n < 2 {
			t.Errorf("%v after %d calls", err, n)
		}
		time.Sleep(time.Minute)
		if calls.Load() != n {
			t.Errorf("%d calls, and then %d", n, calls.Load())
		}
	})
}

// A feed that pauses connects soon while calls are not decided, and at once when one
// is decided again.
func TestFeedPauses(t *testing.T) {
	t.Parallel()
	away := &client.UnavailableError{Err: http.ErrServerClosed}
	for _, c := range []struct {
		name  string
		calls []error // a quarter of a second apart
		want  time.Duration
	}{
		{"nothing is asked", nil, 15 * time.Second},
		{"calls are decided", []error{nil, nil, nil}, 15 * time.Second},
		{"calls are not decided", []error{away, away}, feedLook},
		{"a call is decided again", []error{away, nil}, time.Second / 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLink(func() float64 { return 0.5 }, time.Now)
				go func() {
					for _, err := range c.calls {
						time.Sleep(time.Second / 4)
						l.note(err)
					}
				}()
				start := time.Now()
				must(t, l.waitFeed(t.Context(), 15*time.Second))
				if took := time.Since(start); took != c.want {
					t.Errorf("took %v, want %v", took, c.want)
				}
			})
		})
	}
}

// A feed that connects ends every pause and every call that hangs.
func TestFeedEndsPauses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{link: newLink(func() float64 { return 0.5 }, time.Now), room: newWaitingRoom()}
		var back atomic.Bool
		time.AfterFunc(3*time.Second, func() { back.Store(true); g.link.connected() })
		start := time.Now()
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				var calls int
				w := waiter{place: new(place), until: start.Add(testWait)}
				_, err := pursue(t.Context(), g, w, func(ctx context.Context) (struct{}, error) {
					switch calls++; {
					case back.Load():
						return struct{}{}, nil
					case i%2 == 0 && calls > 1:
						<-ctx.Done() // on a dead connection
						return struct{}{}, &client.UnavailableError{Err: ctx.Err()}
					case i%2 == 0:
						return struct{}{}, &client.UnavailableError{Err: http.ErrServerClosed}
					}
					return struct{}{}, &client.UnavailableError{RetryAfter: time.Minute, Err: http.ErrServerClosed}
				})
				if took := time.Since(start); err != nil || took > 4*time.Second {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		all.Wait()
	})
}

// A service of an earlier version does not have the question, and its store is read
// in place of that.
func TestAbilityOfEarlierService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.withoutReady = true })
	w.login(false)
	w.down.Store(true)
	w.forward(ableLife)
	w.want(w.do("POST", pathLogin, "", anyMap{}), 503, codeUnknown)
}
