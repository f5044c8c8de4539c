package redis_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// failoversVariable is the environment variable with the number of failovers.
const failoversVariable = "DISCHARGER_TEST_FAILOVERS"

// fromEnvironment is a number of repetitions, for who has more time than a
// test may take.
func fromEnvironment(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

// losses is the result of a loop of failovers.
type losses struct {
	failovers, logouts, refreshes int
	revived                       int // logged out, and let in afterwards
	wronged                       int // not logged out, and refused
	replayed                      uint64
}

func (l losses) String() string {
	return fmt.Sprintf("%d failovers, %d logouts, %d refreshes: %d revived, %d wrongly refused, %d records replayed",
		l.failovers, l.logouts, l.refreshes, l.revived, l.wronged, l.replayed)
}

// TestFailoverLoop loses primaries together with their last acknowledged
// writes, again and again. Without journals sessions revive, which shows that
// the test detects it.
func TestFailoverLoop(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	without := failoverLoop(t, s, 1, false)
	t.Logf("without journals: %v", without)
	if without.revived == 0 {
		t.Error("without journals, every logout was kept: nothing is tested here")
	}
	with := failoverLoop(t, s, fromEnvironment(t, failoversVariable, 2), true)
	t.Logf("with journals: %v", with)
	if with.revived > 0 || with.wronged > 0 {
		t.Errorf("with journals: %v", with)
	}
	if with.replayed == 0 {
		t.Error("nothing was ever lost: nothing is tested here")
	}
}

// failoverLoop runs with sessions of its own.
func failoverLoop(t *testing.T, s *redistest.Sentinel, failovers int, journals bool) losses {
	t.Helper()
	var stores []store.Store
	var processes []*redis.Store
	for range 2 {
		cfg := sentinelConfig(s)
		cfg.DialTimeout, cfg.ReadTimeout, cfg.WriteTimeout = 2*time.Second, 2*time.Second, 2*time.Second
		if journals {
			cfg.Journal = storetest.OpenJournal(t, journal.Config{})
		}
		r := OpenRedis(t, cfg)
		stores, processes = append(stores, r), append(processes, r)
	}
	is := storetest.NewIssuer(t, stores...)
	total := losses{failovers: failovers}
	run := fmt.Sprintf("%v-%d", journals, time.Now().UnixNano())
	stay := newRefreshers(t, is, run, 20)
	for round := range failovers {
		total.logouts += lose(t, s, is, stay, fmt.Sprintf("%s-%d", run, round), &total)
	}
	total.refreshes, total.wronged = stay.end(t)
	for _, r := range processes {
		total.replayed += r.JournalStats().Replayed
	}
	return total
}

// lose logs out, and loses the primary that has the logout. It returns the
// number of sessions that ended.
func lose(t *testing.T, s *redistest.Sentinel, is *storetest.Issuer, stay *refreshers, name string, total *losses) int {
	t.Helper()
	const users = 10
	var keep, gone []*storetest.Device
	for i := range users {
		user := fmt.Sprintf("@%s-%d:hs", name, i)
		for j := range 3 {
			d := is.Login(user)
			if err := d.Refresh(t.Context()); err != nil {
				t.Fatalf("log in: %v", err)
			}
			if j == 0 && i%2 == 0 {
				keep = append(keep, d)
			} else {
				gone = append(gone, d)
			}
		}
	}
	s.Cut(t)
	var wg sync.WaitGroup
	var acknowledged atomic.Int64
	for _, d := range keep { // one write for two sessions
		wg.Go(func() {
			if err := d.LogoutOthers(t.Context()); err != nil {
				t.Errorf("log out others: %v", err)
			}
			acknowledged.Add(2)
		})
	}
	for _, d := range singles(gone, keep) {
		wg.Go(func() {
			if err := d.Logout(t.Context()); err != nil {
				t.Errorf("log out: %v", err)
			}
			acknowledged.Add(1)
		})
	}
	wg.Wait()
	s.Primary(t).Kill(t)
	s.Failover(t)
	s.Rejoin(t)
	for _, service := range is.Services { // all have noticed
		redistest.Eventually(t, "a process works again", func() bool {
			_, err := service.Sessions(t.Context(), keep[0].User)
			return err == nil
		})
	}
	for _, d := range gone {
		if err := d.Refresh(t.Context()); err == nil {
			total.revived++
		}
	}
	for _, d := range keep {
		if err := d.Refresh(t.Context()); err != nil {
			t.Logf("a session that was excepted is refused: %v", err)
			total.wronged++
		}
	}
	stay.round(t)
	return int(acknowledged.Load())
}

// singles are the sessions that no other session's logout ends.
func singles(gone, keep []*storetest.Device) (out []*storetest.Device) {
	ended := make(map[store.UserKey]bool)
	for _, d := range keep {
		ended[d.User] = true
	}
	for _, d := range gone {
		if !ended[d.User] {
			out = append(out, d)
		}
	}
	return out
}

// refreshers are sessions that refresh all the time.
type refreshers struct {
	ctx       context.Context
	stop      context.CancelFunc
	done      sync.WaitGroup
	refreshes atomic.Int64
	wronged   atomic.Int64
	last      []atomic.Int64 // of each: how often
}

func newRefreshers(t *testing.T, is *storetest.Issuer, run string, n int) *refreshers {
	t.Helper()
	r := &refreshers{last: make([]atomic.Int64, n)}
	r.ctx, r.stop = context.WithCancel(t.Context())
	t.Cleanup(func() { r.stop(); r.done.Wait() })
	for i := range n {
		d := is.Login(fmt.Sprintf("@%s-stays-%d:hs", run, i))
		if err := d.Refresh(t.Context()); err != nil {
			t.Fatalf("log in: %v", err)
		}
		r.done.Go(func() {
			for r.ctx.Err() == nil {
				err := d.Refresh(r.ctx)
				switch {
				case r.ctx.Err() != nil:
					return
				case err != nil:
					t.Logf("a session that was not ended is refused at epoch %d: %v", d.Epoch, err)
					r.wronged.Add(1)
					return
				}
				r.refreshes.Add(1)
				r.last[i].Add(1)
				storetest.Pause(r.ctx, 20*time.Millisecond)
			}
		})
	}
	return r
}

// round waits until each has refreshed twice more, or was refused.
func (r *refreshers) round(t *testing.T) {
	t.Helper()
	for i := range r.last {
		from := r.last[i].Load()
		redistest.Eventually(t, "every session has refreshed again", func() bool {
			return r.last[i].Load() >= from+2 || r.wronged.Load() > 0
		})
	}
}

func (r *refreshers) end(t *testing.T) (refreshes, wronged int) {
	t.Helper()
	r.stop()
	r.done.Wait()
	return int(r.refreshes.Load()), int(r.wronged.Load())
}
