package redis_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func BenchmarkLoad(b *testing.B) { benchRedis(b, storetest.BenchLoad) }

func BenchmarkSwap(b *testing.B) { benchRedis(b, storetest.BenchSwap) }

func benchRedis(b *testing.B, run func(*testing.B, store.Store, int)) {
	for _, callers := range storetest.BenchCallers {
		for _, unpipelined := range []bool{false, true} {
			b.Run(fmt.Sprintf("callers=%d/unpipelined=%v", callers, unpipelined), func(b *testing.B) {
				server := StartRedis(b)
				cfg := server.Config()
				cfg.Unpipelined, cfg.PoolSize = unpipelined, 64
				s := OpenRedis(b, cfg)
				client0, server0 := processTime(b), server.cpuTime(b)
				run(b, s, callers)
				n := float64(b.N + storetest.BenchUsers) // the preparation counts too
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
	for line := range strings.SplitSeq(s.Do(b, "info", "cpu").(string), "\r\n") {
		var sec float64
		name, value, _ := strings.Cut(line, ":")
		if _, err := fmt.Sscan(value, &sec); err == nil && (name == "used_cpu_user" || name == "used_cpu_sys") {
			d += time.Duration(sec * float64(time.Second))
		}
	}
	return d
}

// BenchmarkRedisPaced loads 5000 sessions a second at a fixed rate, and reports
// how long that took, counted from when a load was due.
func BenchmarkRedisPaced(b *testing.B) {
	for _, unpipelined := range []bool{false, true} {
		b.Run(fmt.Sprintf("unpipelined=%v", unpipelined), func(b *testing.B) {
			cfg := StartRedis(b).Config()
			cfg.Unpipelined, cfg.PoolSize = unpipelined, 64
			s := OpenRedis(b, cfg)
			sessions := storetest.BenchSessions(b, s)
			took, ctx := make([]time.Duration, b.N), storetest.BenchContext(b)
			var wg sync.WaitGroup
			b.ResetTimer()
			due := time.Now()
			for i := range b.N {
				due = due.Add(time.Duration(rand.ExpFloat64() * float64(time.Second) / 5000))
				at, due := sessions[i*7919%storetest.BenchUsers], due
				time.Sleep(time.Until(due))
				wg.Go(func() {
					if _, err := s.Load(ctx, at.User, at.Id, revocation.DeviceTag{}); err != nil {
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
