package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestRedisSlow stops the server. No caller waits longer than its context, and
// no goroutine stays.
func TestRedisSlow(t *testing.T) {
	t.Parallel()
	for _, unpipelined := range []bool{false, true} {
		t.Run(fmt.Sprintf("unpipelined=%v", unpipelined), func(t *testing.T) {
			t.Parallel()
			s := StartRedis(t)
			f := newRedisFixture(t, s, func(c *redis.Config) {
				c.Unpipelined = unpipelined
				c.ReadTimeout, c.DialTimeout = 5*time.Minute, 5*time.Minute // which must not block callers
			})
			u, id := storetest.NewUser(), storetest.NewSession()
			f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("0")})
			s.pause(t)
			ends := map[string]func() (context.Context, context.CancelFunc){
				"deadline": func() (context.Context, context.CancelFunc) {
					return context.WithTimeout(t.Context(), 200*time.Millisecond)
				},
				"cancel": func() (context.Context, context.CancelFunc) {
					ctx, cancel := context.WithCancel(t.Context())
					return ctx, func() { time.AfterFunc(200*time.Millisecond, cancel) }
				},
			}
			for what, end := range ends {
				took := storetest.Awake(func() {
					var wg sync.WaitGroup
					for i := range 100 {
						ctx, cancel := end()
						if what == "cancel" {
							cancel()
						} else {
							defer cancel()
						}
						wg.Go(func() {
							pprof.Do(ctx, pprof.Labels("slow", t.Name()), func(ctx context.Context) {
								var err error
								if i%2 == 0 {
									_, err = f.Load(ctx, u, id, revocation.DeviceTag{})
								} else {
									_, err = f.Swap(ctx, storetest.One(u, store.Change{Session: id, Old: []byte("0"), New: []byte("1")}))
								}
								if err == nil || errors.Is(err, store.ErrLost) {
									t.Errorf("%s: %v", what, err)
								}
							})
						})
					}
					wg.Wait()
				})
				if took > 20*time.Second {
					t.Errorf("%s: callers who have 200 ms waited %v", what, took)
				}
			}
			s.resume(t)
			redistest.Eventually(t, "the store answers again", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := f.Load(ctx, u, id, revocation.DeviceTag{})
				return err == nil
			})
			redistest.Eventually(t, "abandoned commands have ended", func() bool {
				return labelled(t, t.Name()) == 0
			})
			// Whichever of the swaps arrived, the record is one of the two.
			if got := string(f.MustLoad(t, u, id).Session); got != "0" && got != "1" {
				t.Errorf("record is %q", got)
			}
		})
	}
}

// labelled counts the goroutines of this test's calls, and those that they
// started: other tests have goroutines too.
func labelled(t *testing.T, label string) (n int) {
	t.Helper()
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	// A line, and a paragraph for each stack: how many have it, and their labels.
	_, stacks, _ := strings.Cut(profile.String(), "\n")
	for stack := range strings.SplitSeq(stacks, "\n\n") {
		if !strings.Contains(stack, fmt.Sprintf("%q:%q", "slow", label)) {
			continue
		}
		var some int
		if _, err := fmt.Sscanf(stack, "%d @", &some); err != nil {
			t.Fatalf("a stack of the profile is %q: %v", stack, err)
		}
		n += some
	}
	return n
}

// TestRedisTimeout has a context that never ends and a server that never
// answers.
func TestRedisTimeout(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	cfg := s.Config()
	cfg.DialTimeout, cfg.ReadTimeout, cfg.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	f := openEventually(t, cfg)
	u, id := storetest.NewUser(), storetest.NewSession()
	s.pause(t)
	took := storetest.Awake(func() {
		if v, err := f.Load(context.Background(), u, id, revocation.DeviceTag{}); err == nil {
			t.Errorf("Load gives %v", v)
		}
	})
	if took > 5*time.Second {
		t.Errorf("Load took %v with timeouts of 100 ms", took)
	}
	s.resume(t)
	redistest.Eventually(t, "the store answers again", func() bool {
		_, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
		return err == nil
	})
}

// TestRedisRestart stops the server and starts it again, with its data.
func TestRedisRestart(t *testing.T) {
	t.Parallel()
	s := StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	f := newRedisFixture(t, s)
	u, id := storetest.NewUser(), storetest.NewSession()
	for i := range 3 {
		old, next := fmt.Append(nil, i), fmt.Append(nil, i+1)
		c := store.Change{Session: id, New: next, Expires: f.Clock.In(time.Hour)}
		if i > 0 {
			c.Old = old
		}
		f.MustSwap(t, true, u, c)
		s.Kill(t)
		took := storetest.Awake(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if v, err := f.Load(ctx, u, id, revocation.DeviceTag{}); err == nil || errors.Is(err, store.ErrLost) {
				t.Errorf("Load from a server that is not there gives %v, %v", v, err)
			}
			if err := f.Ready(ctx); err == nil {
				t.Error("ready without a server")
			}
		})
		if took > 10*time.Second {
			t.Errorf("took %v to notice that there is no server", took)
		}
		s.Restart(t)
		redistest.Eventually(t, "the store answers again", func() bool {
			_, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
			return err == nil
		})
		f.Expect(t, u, id, string(next), "")
	}
}
