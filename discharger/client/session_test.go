package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

func newSession(t testing.TB, c *Client, cfg SessionConfig) *Session {
	t.Helper()
	s, err := c.NewSession(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// withSession runs a test of one session where time is not real.
func withSession(t *testing.T, test func(*testing.T, *service, *Session)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		test(t, svc, newSession(t, svc.client(t, nil), SessionConfig{Access: svc.mint(t, caveat.V2)}))
	})
}

func mustBundle(t testing.TB, s *Session) string {
	t.Helper()
	b, err := s.Bundle(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSessionRefreshesAheadOfTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		jitter := 0.0
		c := svc.client(t, nil)
		c.jitter = func() float64 { return jitter }
		var saved []RefreshToken
		s := newSession(t, c, SessionConfig{Access: svc.mint(t, caveat.V2), Save: func(_ context.Context, token RefreshToken) error {
			saved = append(saved, token)
			return nil
		}})
		step := func(wait time.Duration, want uint64) {
			t.Helper()
			time.Sleep(wait)
			if got := epochOf(t, mustBundle(t, s)); got != want {
				t.Errorf("epoch %d, want %d", got, want)
			}
			synctest.Wait()
		}
		step(0, 1)
		step(150*time.Second-time.Nanosecond, 1)
		if n := svc.count(); n != 1 {
			t.Errorf("%d requests before half of the lifetime", n)
		}
		jitter = 1
		step(time.Nanosecond, 1) // still the old one; the new one is under way
		if n := svc.count(); n != 2 {
			t.Errorf("%d requests after half of the lifetime", n)
		}
		step(0, 2)
		step(4*time.Minute-time.Nanosecond, 2)
		step(time.Nanosecond, 2) // 80 %
		step(0, 3)
		step(time.Hour, 4) // after an hour without calls, this one waits for a refresh
		if want := []RefreshToken{RefreshToken(makeToken(1, 1)), RefreshToken(makeToken(2, 2)), RefreshToken(makeToken(3, 3)), RefreshToken(makeToken(4, 4))}; !slices.Equal(saved, want) {
			t.Errorf("saved %d tokens, or others than those", len(saved))
		}
	})
}

func TestSessionGrantIsUnbound(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	s := newSession(t, svc.client(t, nil), SessionConfig{Access: svc.mint(t, caveat.V2)})
	for range 2 {
		g, err := s.Grant(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		b, err := g.Bundle()
		if err != nil || b != mustBundle(t, s) {
			t.Errorf("another bundle, %v", err)
		}
		g.Discharge.Bind(g.Access.Signature()) // ours to change
		_ = g.Access.AddFirstPartyCaveat([]byte("x"))
	}
}

func TestSessionRefreshesOnce(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		svc.fault = faults(fault{before: true}, fault{after: true})
		impatient, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for i := range 64 {
			wg.Go(func() {
				ctx := context.Background()
				if i%2 == 0 {
					ctx = impatient
				}
				b, err := s.Bundle(ctx)
				if i%2 == 0 {
					if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnavailable) {
						t.Errorf("cancelled call: %v", err)
					}
					return
				}
				if err != nil || epochOf(t, b) != 1 {
					t.Errorf("call: %v", err)
				}
			})
		}
		synctest.Wait()
		cancel() // gives up half of the calls, and not the refresh
		wg.Wait()
		if n := svc.count(); n != 3 {
			t.Errorf("%d requests for one refresh with two faults", n)
		}
	})
}

// An outage that outlasts a refresh's patience leaves the request-id as it was.
func TestSessionRepeatsUnderTheSameID(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		svc.fault = func(n int, _ url.Values) fault { return fault{after: n == 0, before: n > 0} }
		_, err := s.Bundle(context.Background())
		if !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		tried := svc.count()
		_, err = s.Bundle(context.Background())
		var unavailable *UnavailableError
		if !errors.As(err, &unavailable) || unavailable.RetryAfter <= 0 || svc.count() != tried {
			t.Errorf("right after a failure: %v, %d requests more", err, svc.count()-tried)
		}
		svc.fault = nil
		time.Sleep(time.Hour)
		if got := epochOf(t, mustBundle(t, s)); got != 1 {
			t.Errorf("epoch %d: the lost answer was not repeated", got)
		}
		if first, last := svc.requests[0], svc.requests[tried]; first.Get(wire.ParamRequestID) != last.Get(wire.ParamRequestID) {
			t.Error("another request-id for the same refresh")
		}
		if err := s.Refresh(context.Background()); err != nil {
			t.Fatal(err)
		}
		if a, b := svc.requests[tried], svc.requests[tried+1]; a.Get(wire.ParamRequestID) == b.Get(wire.ParamRequestID) || b.Get(wire.ParamToken64) != makeToken(1, 1) {
			t.Error("the next refresh goes by the same id, or without its token")
		}
	})
}

func TestSessionDuringAnOutage(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		first := mustBundle(t, s)
		svc.fault = func(int, url.Values) fault {
			return fault{answer: answer(503, wire.ContentType, "{}", "Retry-After", "200")}
		}
		for range 294 { // every second up to the moment before it expires
			time.Sleep(time.Second)
			if mustBundle(t, s) != first {
				t.Fatal("another bundle")
			}
		}
		if n := svc.count(); n != 2 {
			t.Errorf("%d requests within Retry-After", n)
		}
		time.Sleep(time.Second)
		if _, err := s.Bundle(context.Background()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a bundle is handed out at its end: %v", err)
		}
	})
}

func TestSessionSavesBeforeUse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		var s *Session
		failing, saves := true, 0
		errDisk := errors.New("disk is full")
		s = newSession(t, svc.client(t, nil), SessionConfig{Access: svc.mint(t, caveat.V2), Save: func(ctx context.Context, token RefreshToken) error {
			saves++
			if _, ok := ctx.Deadline(); !ok {
				t.Error("no deadline")
			}
			s.mu.Lock()
			used := s.token == token || s.current != nil && s.current.grant.Token == token
			s.mu.Unlock()
			if used {
				t.Error("in use before it is saved")
			}
			if failing {
				return errDisk
			}
			return nil
		}})
		if _, err := s.Bundle(context.Background()); !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
		if _, err := s.Bundle(context.Background()); !errors.Is(err, errDisk) || saves != 1 {
			t.Fatalf("%v after %d saves", err, saves)
		}
		failing = false
		time.Sleep(time.Second)
		if got := epochOf(t, mustBundle(t, s)); got != 1 || saves != 2 {
			t.Errorf("epoch %d after %d saves", got, saves)
		}
	})
}

func TestSessionEnds(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		mustBundle(t, s)
		for _, r := range svc.sessions {
			r.ended = wire.ReasonSessionEnded
		}
		mustBundle(t, s) // unaware
		time.Sleep(299 * time.Second)
		for range 3 {
			_, err := s.Bundle(context.Background())
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Reason != wire.ReasonSessionEnded {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		if n := svc.count(); n != 2 {
			t.Errorf("%d requests, want 2: a refusal is final", n)
		}
		if err := s.Run(context.Background()); !errors.Is(err, ErrRefused) {
			t.Errorf("Run goes on: %v", err)
		}
		if s.token != "" || s.current != nil {
			t.Error("secrets are kept beyond the end")
		}
	})
}

// A policy's refusal is about this moment. The session goes on, without haste.
func TestSessionGoesOnAfterPolicy(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		mustBundle(t, s)
		svc.fault = func(int, url.Values) fault {
			return fault{answer: answer(401, wire.ContentType, `{"Code":"permission denied","Message":"not at night","Info":{"Reason":"policy"}}`)}
		}
		if err := s.Refresh(context.Background()); !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
		mustBundle(t, s)
		if err := s.Refresh(context.Background()); !errors.Is(err, ErrRefused) || svc.count() != 2 {
			t.Errorf("requested again at once: %v", err)
		}
		svc.fault = nil
		time.Sleep(time.Minute)
		if err := s.Refresh(context.Background()); err != nil || svc.count() != 3 {
			t.Errorf("not requested again: %v", err)
		}
	})
}

// A refusal of a request leaves the session as it is, for every reason.
func TestSessionGoesOnUnlessEnded(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{
		wire.ReasonTokenRequired, wire.ReasonTokenInvalid, wire.ReasonTokenSuperseded, wire.ReasonHomeserverRequired, wire.ReasonSessionEnded, wire.ReasonTokenReused,
	} {
		t.Run(reason, func(t *testing.T) {
			withSession(t, func(t *testing.T, svc *service, s *Session) {
				mustBundle(t, s)
				token := s.token
				refused := answer(401, wire.ContentType, `{"Code":"permission denied","Message":"m","Info":{"Reason":"`+reason+`","Ended":false}}`)
				svc.fault = func(int, url.Values) fault { return fault{answer: refused} }
				if err := s.Refresh(context.Background()); !errors.Is(err, ErrRefused) {
					t.Fatal(err)
				}
				if err := s.Logout(context.Background(), wire.ScopeUser); !errors.Is(err, ErrRefused) {
					t.Fatal(err)
				}
				if mustBundle(t, s); s.token != token || s.over != nil {
					t.Errorf("%s empties the session", reason)
				}
				svc.fault = nil
				time.Sleep(time.Minute)
				if err := s.Refresh(context.Background()); err != nil {
					t.Errorf("%s: %v", reason, err)
				}
			})
		})
	}
}

// However short a discharge lives, there is not a request for every call.
func TestSessionOfShortLivedDischarges(t *testing.T) {
	t.Parallel()
	for _, lifetime := range []time.Duration{time.Millisecond, 1500 * time.Millisecond, 3 * time.Second} {
		t.Run(lifetime.String(), func(t *testing.T) {
			withSession(t, func(t *testing.T, svc *service, s *Session) {
				svc.lifetime = lifetime
				for range 200 {
					mustBundle(t, s)
					time.Sleep(50 * time.Millisecond)
				}
				if n := svc.count(); n < 3 || n > 11 {
					t.Errorf("%d requests in 10 seconds for discharges of %v", n, lifetime)
				}
			})
		})
	}
}

// A computer that sleeps has a wall clock that jumps and a monotonic one that
// does not. Both count.
func TestSessionAfterSleep(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	asleep := time.Duration(0)
	c := svc.client(t, nil)
	c.now = func() time.Time { return time.Now().Round(0).Add(asleep) }
	s := newSession(t, c, SessionConfig{Access: svc.mint(t, caveat.V2)})
	mustBundle(t, s)
	asleep = time.Hour
	if got := epochOf(t, mustBundle(t, s)); got != 2 {
		t.Errorf("epoch %d after an hour's sleep", got)
	}
	now := time.Now()
	if got := left(now, now.Add(time.Minute)); got != time.Minute {
		t.Errorf("%v left of a minute", got)
	}
	if got := left(now.Add(time.Hour).Round(0), now.Add(time.Minute)); got != -59*time.Minute {
		t.Errorf("%v left of a minute after an hour's sleep", got)
	}
}

func TestSessionWithoutTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		svc.noTokens = true
		s := newSession(t, svc.client(t, nil), SessionConfig{Access: svc.mint(t, caveat.V3), Save: func(context.Context, RefreshToken) error {
			t.Error("saved a token")
			return nil
		}})
		for range 3 {
			mustBundle(t, s)
			time.Sleep(5 * time.Minute)
		}
		if svc.requests[2].Get(wire.ParamToken64) != "" {
			t.Error("a token out of nowhere")
		}
	})
}

func TestRun(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(time.Minute)
		for range 3 { // an outage of a lifetime, twice over
			svc.mu.Lock()
			svc.fault = func(int, url.Values) fault { return fault{before: true} }
			svc.mu.Unlock()
			time.Sleep(10 * time.Minute)
			svc.mu.Lock()
			svc.fault = nil
			before := len(svc.requests)
			svc.mu.Unlock()
			time.Sleep(time.Hour)
			n := svc.count() - before
			if n < 60/4 || n > 60*2/5+2 {
				t.Errorf("%d refreshes in an hour of lifetimes of 5 minutes", n)
			}
			before = svc.count()
			mustBundle(t, s)
			if svc.count() != before {
				t.Error("Bundle had to ask")
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ends with %v", err)
		}
		for _, r := range svc.sessions {
			if r.ended != "" {
				t.Errorf("session ended: %s", r.ended)
			}
		}
	})
}

func TestRunEndsWithTheSession(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		done := make(chan error)
		go func() { done <- s.Run(context.Background()) }()
		time.Sleep(time.Minute)
		if err := s.Logout(context.Background(), wire.ScopeSession); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ErrRefused) {
			t.Errorf("Run ends with %v", err)
		}
	})
}

func TestLogout(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		mustBundle(t, s)
		svc.fault = faults(fault{}, fault{after: true}, fault{before: true})
		if err := s.Logout(context.Background(), wire.ScopeUser); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Bundle(context.Background()); !errors.Is(err, ErrRefused) {
			t.Errorf("after logout: %v", err)
		}
		if err := s.Refresh(context.Background()); !errors.Is(err, ErrRefused) {
			t.Errorf("after logout: %v", err)
		}
		if n := svc.count(); n != 4 {
			t.Fatalf("%d requests, want 4", n)
		}
		for _, r := range svc.requests[1:] {
			if r.Get(wire.ParamScope) != "user" || r.Get(wire.ParamToken64) != makeToken(1, 1) || r.Get(wire.ParamTokenKind) != wire.TokenKindRefresh || r.Get(wire.ParamID64) == "" {
				t.Errorf("logout is %s", r.Encode())
			}
		}
		if err := s.Logout(context.Background(), wire.ScopeSession); !errors.Is(err, ErrRefused) || svc.count() != 4 {
			t.Errorf("logout of a session that is over: %v", err)
		}
	})
}

func TestLogoutFails(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		mustBundle(t, s)
		svc.fault = func(int, url.Values) fault { return fault{before: true} }
		if err := s.Logout(context.Background(), wire.ScopeSession); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		svc.fault = nil
		mustBundle(t, s)
		time.Sleep(time.Hour)
		mustBundle(t, s)
		for _, r := range svc.sessions {
			r.ended = wire.ReasonTokenReused
		}
		svc.fault = func(int, url.Values) fault {
			return fault{answer: answer(401, wire.ContentType, `{"Code":"permission denied","Info":{"Reason":"token_reused"}}`)}
		}
		if err := s.Logout(context.Background(), wire.ScopeSession); !errors.Is(err, ErrRefused) {
			t.Fatal(err)
		}
		if _, err := s.Bundle(context.Background()); !errors.Is(err, ErrRefused) {
			t.Errorf("after a final refusal: %v", err)
		}
	})
}

// A logout does not wait for a refresh that gets nowhere, and nothing begins
// while it is under way.
func TestLogoutCallsOffARefresh(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		svc.fault = func(_ int, form url.Values) fault { return fault{before: form.Get(wire.ParamScope) == ""} }
		waiting := make(chan error)
		go func() {
			_, err := s.Bundle(context.Background())
			waiting <- err
		}()
		synctest.Wait()
		began := time.Now()
		leaving := make(chan error)
		go func() { leaving <- s.Logout(context.Background(), wire.ScopeSession) }()
		if err := <-waiting; !errors.Is(err, ErrUnavailable) {
			t.Errorf("refresh called off: %v", err)
		}
		if err := <-leaving; err != nil || time.Since(began) > time.Second {
			t.Errorf("logout after %v: %v", time.Since(began), err)
		}
	})
}

func TestLogoutGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		saving := make(chan struct{})
		s := newSession(t, svc.client(t, nil), SessionConfig{Access: svc.mint(t, caveat.V2), Save: func(context.Context, RefreshToken) error {
			<-saving
			return nil
		}})
		go func() { _, _ = s.Bundle(context.Background()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Logout(ctx, wire.ScopeSession); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("logout: %v", err)
		}
		close(saving)
		synctest.Wait()
		mustBundle(t, s)
	})
}

func TestNothingBeginsDuringLogout(t *testing.T) {
	t.Parallel()
	withSession(t, func(t *testing.T, svc *service, s *Session) {
		svc.fault = func(int, url.Values) fault { return fault{before: true} }
		ctx, cancel := context.WithCancel(context.Background())
		left := make(chan error)
		go func() { left <- s.Logout(ctx, wire.ScopeSession) }()
		synctest.Wait()
		if _, err := s.Bundle(context.Background()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("during logout: %v", err)
		}
		for _, r := range svc.requests {
			if r.Get(wire.ParamScope) == "" {
				t.Error("a refresh during logout")
			}
		}
		cancel()
		<-left
	})
}

// TestSessionSurvivesEverything: lost replies, failures and crashes in any order never
// make a session with one user look stolen. The service keeps the strictest rules, and every
// returned bundle is used, which confirms its token.
func TestSessionSurvivesEverything(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			var mu sync.Mutex // of all that a crash leaves
			random := rand.New(rand.NewPCG(seed, 1))
			dice := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(n)
			}
			svc := newService(t)
			svc.fault = func(int, url.Values) fault {
				switch dice(8) {
				case 0:
					return fault{before: true}
				case 1, 2:
					return fault{after: true}
				case 3:
					return fault{answer: answer(503, wire.ContentType, "{}", "Retry-After", "1")}
				case 4:
					return fault{answer: answer(http.StatusBadGateway, "text/html", "<h1>502</h1>")}
				}
				return fault{}
			}
			access := svc.mint(t, caveat.V2)
			var disk RefreshToken
			save := func(_ context.Context, token RefreshToken) error {
				outcome := dice(6)
				if outcome == 0 {
					return errors.New("not written")
				}
				mu.Lock()
				disk = token
				mu.Unlock()
				if outcome == 1 {
					return errors.New("written, and failed all the same")
				}
				return nil
			}
			start := func() *Session {
				mu.Lock()
				defer mu.Unlock()
				return newSession(t, svc.client(t, nil), SessionConfig{Access: access, Token: disk, Save: save})
			}
			s, good := start(), 0
			for range 300 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(dice(20))*time.Second)
				bundle, err := s.Bundle(ctx)
				cancel()
				switch {
				case err == nil:
					good++
					svc.seen(epochOf(t, bundle))
				case errors.Is(err, ErrRefused), errors.Is(err, ErrBadRequest):
					t.Fatalf("seed %d: %v", seed, err)
				}
				time.Sleep(time.Duration(dice(200)) * time.Second)
				if dice(5) == 0 {
					s.mu.Lock()
					f := s.flight
					s.mu.Unlock()
					if f != nil { // a crash stops it wherever it is
						f.cancel()
						<-f.done
					}
					s = start()
				}
			}
			if good < 100 {
				t.Errorf("seed %d: only %d bundles of 300", seed, good)
			}
			s.settled(context.Background()) // a bubble ends when all in it has
		})
	}
}

func TestSessionFromLoginToLogout(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	login, err := bundle.Encode(macaroon.Slice{svc.mint(t, caveat.V2).Macaroon})
	if err != nil {
		t.Fatal(err)
	}
	access, err := ParseAccess([]byte(login))
	if err != nil {
		t.Fatal(err)
	}
	var stored string
	s := newSession(t, svc.client(t, nil), SessionConfig{Access: access, Save: func(_ context.Context, token RefreshToken) error {
		stored = string(token)
		return nil
	}})
	b, err := bundle.Parse(mustBundle(t, s))
	if err != nil || len(b.Discharges) != 1 || !b.Compact {
		t.Errorf("bundle %+v, %v", b, err)
	}
	if token, err := ParseRefreshToken(stored); err != nil || fmt.Sprint(token) != "REDACTED" {
		t.Errorf("stored token: %v, %v", token, err)
	}
	if err := s.Logout(t.Context(), wire.ScopeSession); err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if _, err := s.Bundle(t.Context()); !errors.As(err, &refused) || !refused.Ended || refused.Reason != wire.ReasonSessionEnded {
		t.Errorf("after the logout: %v", err)
	}
}
