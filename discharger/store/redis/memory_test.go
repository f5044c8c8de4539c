package redis_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// usedMemory returns used_memory of the server.
func (s *redisServer) usedMemory(t testing.TB) int64 {
	t.Helper()
	for line := range strings.SplitSeq(s.Do(t, "info", "memory").(string), "\r\n") {
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

// memoryPerSession fills a server of its own with users and returns the memory of one
// session costs, keys and expiry and everything else included.
//
// With a device, each session is on one of its own.
func memoryPerSession(t testing.TB, users, sessions, record, userRecord, device int) float64 {
	return memoryOf(t, users, sessions, record, userRecord, device, 0) / float64(users*sessions)
}

// memoryOf returns the memory of users who also have ended sessions.
func memoryOf(t testing.TB, users, sessions, record, userRecord, device, ended int) float64 {
	t.Helper()
	s := StartRedis(t)
	defer s.Kill(t)
	f := newRedisFixture(t, s)
	f.MustSwap(t, true, storetest.NewUser(), store.Change{New: []byte("x")}) // the script is there
	before := s.memoryAtRest(t, f)
	f = newRedisFixture(t, s)
	var wg sync.WaitGroup
	fill := func(from, to int) {
		for i := from; i < to; i++ {
			u := storetest.NewUser()
			for j := range sessions {
				id := storetest.NewSession()
				c := store.Change{Session: id, New: pseudorandom(record), Expires: time.Now().Add(time.Duration(1+i%1000) * time.Hour)}
				w := storetest.One(u, c)
				if j == 0 && userRecord > 0 {
					w.Changes = append(w.Changes, store.Change{New: pseudorandom(userRecord), Expires: c.Expires})
				}
				if device > 0 {
					tag := revocation.TagOf(id.String())
					w.Changes = append(w.Changes, store.Change{Device: tag, New: pseudorandom(device), Expires: time.Now().Add(12 * time.Minute)})
				}
				for range ended / sessions {
					w.Changes = append(w.Changes, store.Change{Session: storetest.NewSession(), New: tombstoneNow(t), Expires: c.Expires})
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
	return float64(s.memoryAtRest(t, f) - before)
}

// memoryAtRest returns the used memory while the store is closed, since the
// memory of connections varies.
func (s *redisServer) memoryAtRest(t testing.TB, f *storetest.Fixture) (last int64) {
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
		id := storetest.NewSession()
		b = append(b, id[:]...)
	}
	return b[:n]
}

// TestRedisMemory holds the promise of 160 bytes for a session without a device,
// and of 200 with its device's entry, with three sessions to a user and a default
// configuration of Redis 7.0; and of 60 bytes for a tombstone beside them.
func TestRedisMemory(t *testing.T) {
	const users = 20_000
	for _, c := range []struct {
		what                 string
		record, user, device int
		limit                float64
	}{
		{"session", 55, 0, 0, 160},
		{"session", 64, 0, 0, 160},
		{"session", 75, 0, 0, 160},
		{"session", 67, 16, 0, 160},
		{"session", 55, 0, deviceSize(t), 200},
		{"session", 75, 0, deviceSize(t), 200},
		{"session", 67, 16, deviceSize(t), 200},
	} {
		t.Run(fmt.Sprintf("%s of %d bytes, %d for the user, %d for the device", c.what, c.record, c.user, c.device), func(t *testing.T) {
			got := memoryPerSession(t, users, 3, c.record, c.user, c.device)
			t.Logf("%.1f bytes of memory", got)
			if got > c.limit {
				t.Errorf("%.1f bytes of memory, more than %.0f", got, c.limit)
			}
		})
	}
	t.Run("tombstones", func(t *testing.T) {
		const ended = 6
		with, without := memoryOf(t, users, 3, 75, 0, deviceSize(t), ended), memoryOf(t, users, 3, 75, 0, deviceSize(t), 0)
		got := (with - without) / (users * ended)
		t.Logf("%.1f bytes of memory for each of %d bytes", got, len(tombstoneNow(t)))
		if got > 60 {
			t.Errorf("%.1f bytes of memory, more than 60", got)
		}
	})
}

// deviceSize is the size of the record of a device on which a session lives.
func deviceSize(t *testing.T) int {
	return len(storetest.Marshal(t, session.DeviceRecord{Current: storetest.NewSession(), Since: time.Now().UnixMilli()}))
}

// tombstoneNow is that of a logout on a device as Synapse names it.
func tombstoneNow(t testing.TB) []byte {
	return storetest.Marshal(t, &session.Record{
		Device: "ABCDEFGHIJ", Confirmed: session.Confirmed{Epoch: 300}, End: revocation.End{Cause: revocation.CauseLogout, At: time.Now().UnixMilli()},
	})
}

// BenchmarkRedisMemory reports the memory of other sizes of records.
func BenchmarkRedisMemory(b *testing.B) {
	for _, c := range []struct{ sessions, record, user int }{
		{3, 55, 0}, {3, 64, 0}, {3, 75, 0}, {3, 76, 0}, {3, 80, 0}, {3, 95, 0}, {3, 96, 0}, {3, 97, 0}, {3, 122, 0}, {3, 123, 0},
		{3, 67, 16}, {3, 68, 16}, {3, 75, 16}, {3, 95, 16}, {1, 75, 0}, {10, 75, 0}, {10, 95, 0},
	} {
		b.Run(fmt.Sprintf("sessions=%d/record=%d/user=%d", c.sessions, c.record, c.user), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(memoryPerSession(b, 20_000, c.sessions, c.record, c.user, 0), "bytes/session")
			}
		})
	}
}

// TestRedisSlots compares the slots of keys with a server of a cluster.
func TestRedisSlots(t *testing.T) {
	t.Parallel()
	host, port := redistest.Address(t)
	s := StartRedis(t, "--cluster-enabled", "yes", "--port", port, "--bind", host)
	for i, key := range redis.IdentityKeys(tagKey) {
		if slot := s.Do(t, "cluster", "keyslot", key).(int64); slot/64 != int64(i) {
			t.Errorf("%s is in slot %d, want one of 64 from %d", key, slot, 64*i)
		}
	}
}
