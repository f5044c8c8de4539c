package service

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
)

// A request that waits has no place among the concurrent ones, and a request without a
// place after the wait is unavailable.
func TestWaiterHasNoPlace(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		t.Run(fmt.Sprintf("full %v", full), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := &Client{Link: newLink(func() float64 { return 0.5 }, time.Now), Waiting: admission.NewWaitingRoom()}
				l := admission.NewLimiter(admission.Limits{Requests: 1}, time.Now)
				var p, other admission.Place
				c := netip.MustParseAddr("192.0.2.1")
				l.Take(&p, admission.Peer(c), admission.Brief)
				var calls int
				w := Waiter{Peer: admission.Peer(c), Place: &p, Until: time.Now().Add((10 * time.Second))}
				value, err := Do(t.Context(), g, w, func(context.Context) (int, error) {
					if calls++; calls == 4 {
						return 7, nil
					}
					switch n := l.Busy(admission.Brief); {
					case n != 0 && calls == 2:
						t.Errorf("%d places are taken while it waits", n)
					case full && calls == 2:
						l.Take(&other, admission.Peer(c), admission.Brief)
					}
					return 0, &client.UnavailableError{Err: http.ErrServerClosed}
				})
				if full {
					if !errors.Is(err, client.ErrUnavailable) || l.Busy(admission.Brief) != 1 {
						t.Errorf("%v, %d places", err, l.Busy(admission.Brief))
					}
				} else if err != nil || value != 7 || l.Busy(admission.Brief) != 1 {
					t.Errorf("%d, %v, %d places", value, err, l.Busy(admission.Brief))
				}
			})
		})
	}
}

// A call is not repeated when no request waits for it any more.
func TestCallIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &Client{Link: newLink(func() float64 { return 0.5 }, time.Now), Waiting: admission.NewWaitingRoom()}
		var calls atomic.Int64
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		w := Waiter{Place: new(admission.Place), Until: time.Now().Add((10 * time.Second))}
		_, err := Do(ctx, g, w, func(context.Context) (struct{}, error) {
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
		{"no calls", nil, 15 * time.Second},
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
				if err := l.WaitFeed(t.Context(), 15*time.Second); err != nil {
					t.Fatal(err)
				}
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
		g := &Client{Link: newLink(func() float64 { return 0.5 }, time.Now), Waiting: admission.NewWaitingRoom()}
		var back atomic.Bool
		time.AfterFunc(3*time.Second, func() { back.Store(true); g.Link.Connected() })
		start := time.Now()
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				var calls int
				w := Waiter{Place: new(admission.Place), Until: start.Add((10 * time.Second))}
				_, err := Do(t.Context(), g, w, func(ctx context.Context) (struct{}, error) {
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
