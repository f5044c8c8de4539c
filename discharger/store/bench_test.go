package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// benchUsers is how many users, of one session each, a benchmark works on.
const benchUsers = 2000

type benchSession struct {
	user discharger.UserKey
	id   caveat.SessionID
}

// benchContext has a deadline, as every request has.
func benchContext(b *testing.B) context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	b.Cleanup(cancel)
	return ctx
}

func benchSessions(b *testing.B, s discharger.Store) []benchSession {
	b.Helper()
	out := make([]benchSession, benchUsers)
	spread(b, 64, benchUsers, func(i int) {
		out[i] = benchSession{discharger.UserKey{Homeserver: "example.org", User: fmt.Sprintf("@user%d:example.org", i)}, newSession()}
		w := one(out[i].user, discharger.Change{Session: out[i].id, New: make([]byte, 75), Expires: time.Now().Add(time.Hour)})
		if ok, err := s.Swap(b.Context(), w); !ok || err != nil {
			b.Error(ok, err)
		}
	})
	return out
}

// spread has some callers make n calls between them.
func spread(b *testing.B, callers, n int, call func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				call(i)
			}
		})
	}
	wg.Wait()
}

func benchLoad(b *testing.B, s discharger.Store, callers int) {
	sessions := benchSessions(b, s)
	ctx := benchContext(b)
	b.ReportAllocs()
	b.ResetTimer()
	spread(b, callers, b.N, func(i int) {
		at := sessions[i*7919%benchUsers]
		if v, err := s.Load(ctx, at.user, at.id, revocation.DeviceTag{}); err != nil || v.Session == nil {
			b.Error(v, err)
		}
	})
}

func benchSwap(b *testing.B, s discharger.Store, callers int) {
	sessions := benchSessions(b, s)
	now := make([]atomic.Pointer[[]byte], benchUsers)
	ctx, start := benchContext(b), make([]byte, 75)
	for i := range now {
		now[i].Store(&start)
	}
	b.ReportAllocs()
	b.ResetTimer()
	spread(b, callers, b.N, func(i int) {
		k := i * 7919 % benchUsers
		next := fmt.Appendf(nil, "%-75d", i)
		w := one(sessions[k].user, discharger.Change{Session: sessions[k].id, Old: *now[k].Load(), New: next, Expires: time.Now().Add(time.Hour)})
		if _, err := s.Swap(ctx, w); err != nil {
			b.Error(err)
		}
		now[k].Store(&next)
	})
}

var benchCallers = []int{1, 64}

func BenchmarkRedisLoad(b *testing.B) { benchRedis(b, benchLoad) }

func BenchmarkRedisSwap(b *testing.B) { benchRedis(b, benchSwap) }

func benchRedis(b *testing.B, run func(*testing.B, discharger.Store, int)) {
	for _, callers := range benchCallers {
		for _, unpipelined := range []bool{false, true} {
			b.Run(fmt.Sprintf("callers=%d/unpipelined=%v", callers, unpipelined), func(b *testing.B) {
				server := startRedis(b)
				cfg := server.config()
				cfg.Unpipelined, cfg.PoolSize = unpipelined, 64
				s := openRedis(b, cfg)
				client0, server0 := processTime(b), server.cpuTime(b)
				run(b, s, callers)
				n := float64(b.N + benchUsers) // the preparation counts too
				b.ReportMetric(float64((processTime(b)-client0).Microseconds())/n, "client-cpu-µs/op")
				b.ReportMetric(float64((server.cpuTime(b)-server0).Microseconds())/n, "server-cpu-µs/op")
			})
		}
	}
}

// processTime is the processor time that this process has used.
func processTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuTime is the processor time that the server has used.
func (s *redisServer) cpuTime(b *testing.B) (d time.Duration) {
	b.Helper()
	for line := range strings.SplitSeq(s.do(b, "info", "cpu").(string), "\r\n") {
		var sec float64
		name, value, _ := strings.Cut(line, ":")
		if _, err := fmt.Sscan(value, &sec); err == nil && (name == "used_cpu_user" || name == "used_cpu_sys") {
			d += time.Duration(sec * float64(time.Second))
		}
	}
	return d
}

// BenchmarkRedisPaced loads 5000 sessions a second, come what may, and reports
// how long that took, counted from when a load was due.
func BenchmarkRedisPaced(b *testing.B) {
	for _, unpipelined := range []bool{false, true} {
		b.Run(fmt.Sprintf("unpipelined=%v", unpipelined), func(b *testing.B) {
			cfg := startRedis(b).config()
			cfg.Unpipelined, cfg.PoolSize = unpipelined, 64
			s := openRedis(b, cfg)
			sessions := benchSessions(b, s)
			took, ctx := make([]time.Duration, b.N), benchContext(b)
			var wg sync.WaitGroup
			b.ResetTimer()
			due := time.Now()
			for i := range b.N {
				due = due.Add(time.Duration(rand.ExpFloat64() * float64(time.Second) / 5000))
				at, due := sessions[i*7919%benchUsers], due
				time.Sleep(time.Until(due))
				wg.Go(func() {
					if _, err := s.Load(ctx, at.user, at.id, revocation.DeviceTag{}); err != nil {
						b.Error(err)
					}
					took[i] = time.Since(due)
				})
			}
			wg.Wait()
			b.StopTimer()
			slices.Sort(took)
			for _, p := range []int{50, 90, 99} {
				b.ReportMetric(float64(took[(len(took)-1)*p/100].Microseconds()), fmt.Sprintf("p%d-µs", p))
			}
		})
	}
}

func BenchmarkBoltLoad(b *testing.B) {
	for _, callers := range benchCallers {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			benchLoad(b, openBolt(b, store.BoltConfig{Path: filepath.Join(b.TempDir(), "store.db")}), callers)
		})
	}
}

// BenchmarkBoltSwap compares with what bbolt does by itself, with the delay it
// has by default and with ours.
func BenchmarkBoltSwap(b *testing.B) {
	for _, callers := range []int{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("callers=%d/store", callers), func(b *testing.B) {
			benchSwap(b, openBolt(b, store.BoltConfig{Path: filepath.Join(b.TempDir(), "store.db")}), callers)
		})
		for _, delay := range []time.Duration{store.BatchDelay, 10 * time.Millisecond} {
			b.Run(fmt.Sprintf("callers=%d/bbolt/delay=%v", callers, delay), func(b *testing.B) {
				benchBbolt(b, delay, callers)
			})
		}
	}
}

func benchBbolt(b *testing.B, delay time.Duration, callers int) {
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.MaxBatchDelay = delay
	bucket := []byte("records")
	put := func(i int) {
		key := fmt.Appendf(nil, "example.org@user%d:example.org0123456789abcdef", i*7919%benchUsers)
		if err := db.Batch(func(tx *bbolt.Tx) error {
			bk, err := tx.CreateBucketIfNotExists(bucket)
			if err != nil {
				return err
			}
			return bk.Put(key, fmt.Appendf(nil, "%-79d", i))
		}); err != nil {
			b.Error(err)
		}
	}
	spread(b, 64, benchUsers, put)
	b.ReportAllocs()
	b.ResetTimer()
	spread(b, callers, b.N, put)
}

// BenchmarkBoltOpen opens a file with a million rows.
func BenchmarkBoltOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "store.db")
	store.FillBolt(b, path, 1_000_000)
	b.ResetTimer()
	for b.Loop() {
		if err := openBolt(b, store.BoltConfig{Path: path}).Close(); err != nil {
			b.Fatal(err)
		}
	}
}
