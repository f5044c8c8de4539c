package store_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

// usedMemory is what the server says it uses.
func (s *redisServer) usedMemory(t testing.TB) int64 {
	t.Helper()
	for line := range strings.SplitSeq(s.do(t, "info", "memory").(string), "\r\n") {
		if v, ok := strings.CutPrefix(line, "used_memory:"); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no used_memory")
	return 0
}

// memoryPerSession fills a server of its own with users and returns what one
// session costs, keys and expiry and everything else included.
func memoryPerSession(t testing.TB, users, sessions, record, userRecord int) float64 {
	t.Helper()
	s := startRedis(t)
	defer s.Kill(t)
	f := newRedisFixture(t, s)
	f.swap(t, true, someone(), discharger.Change{New: []byte("x")}) // the script is there
	before := s.memoryAtRest(t, f)
	f = newRedisFixture(t, s)
	var wg sync.WaitGroup
	fill := func(from, to int) {
		for i := from; i < to; i++ {
			u := someone()
			for j := range sessions {
				id := newSession()
				c := discharger.Change{Session: id, New: pseudorandom(record), Expires: time.Now().Add(time.Duration(1+i%1000) * time.Hour)}
				w := one(u, c)
				if j == 0 && userRecord > 0 {
					w.Changes = append(w.Changes, discharger.Change{New: pseudorandom(userRecord), Expires: c.Expires})
				}
				if ok, err := f.Swap(t.Context(), w); !ok || err != nil {
					t.Error(ok, err)
					return
				}
			}
		}
	}
	const workers = 32
	for w := range workers {
		wg.Go(func() { fill(users*w/workers, users*(w+1)/workers) })
	}
	wg.Wait()
	return float64(s.memoryAtRest(t, f)-before) / float64(users*sessions)
}

// memoryAtRest is what the server uses when a store is closed, whose
// connections take what they happen to.
func (s *redisServer) memoryAtRest(t testing.TB, f *fixture) (last int64) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	redistest.Eventually(t, "the server is at rest", func() bool {
		now := s.usedMemory(t)
		ok := now == last && s.Info(t, "clients")["connected_clients"] == "2"
		last = now
		return ok
	})
	return last
}

func pseudorandom(n int) []byte {
	b := make([]byte, 0, n+16)
	for len(b) < n {
		id := newSession()
		b = append(b, id[:]...)
	}
	return b[:n]
}

// TestRedisMemory holds the promise of 160 bytes for a session, with three
// sessions to a user and a default configuration of Redis 7.0.
func TestRedisMemory(t *testing.T) {
	const users, limit = 20_000, 160
	for _, c := range []struct{ record, user int }{{55, 0}, {64, 0}, {75, 0}, {67, 16}} {
		got := memoryPerSession(t, users, 3, c.record, c.user)
		t.Logf("a session of %d bytes, %d for the user: %.1f bytes of memory", c.record, c.user, got)
		if got > limit {
			t.Errorf("a session of %d bytes takes %.1f bytes of memory, more than %d", c.record, got, limit)
		}
	}
}

// BenchmarkRedisMemory reports the memory of other sizes of records.
func BenchmarkRedisMemory(b *testing.B) {
	for _, c := range []struct{ sessions, record, user int }{
		{3, 55, 0}, {3, 64, 0}, {3, 75, 0}, {3, 76, 0}, {3, 80, 0}, {3, 95, 0}, {3, 96, 0}, {3, 97, 0}, {3, 122, 0}, {3, 123, 0},
		{3, 67, 16}, {3, 68, 16}, {3, 75, 16}, {3, 95, 16}, {1, 75, 0}, {10, 75, 0}, {10, 95, 0},
	} {
		b.Run(fmt.Sprintf("sessions=%d/record=%d/user=%d", c.sessions, c.record, c.user), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(memoryPerSession(b, 20_000, c.sessions, c.record, c.user), "bytes/session")
			}
		})
	}
}

// TestRedisSlots asks a server of a cluster where keys belong.
func TestRedisSlots(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	s := startRedis(t, "--cluster-enabled", "yes", "--port", port, "--bind", host)
	for i, key := range store.IdentityKeys(tagKey) {
		if slot := s.do(t, "cluster", "keyslot", key).(int64); slot/64 != int64(i) {
			t.Errorf("%s is in slot %d, want one of 64 from %d", key, slot, 64*i)
		}
	}
}
