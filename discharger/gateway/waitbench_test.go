package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// BenchmarkWaiting measures the memory and goroutines of 500 requests of as many
// sessions that wait for the service, without those of their connections.
func BenchmarkWaiting(b *testing.B) {
	const requests = 500
	w := newWorld(b, func(w *world) {
		w.cfg.timeouts = defaultTimeouts()
		w.cfg.timeouts.wait = time.Hour
		w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	all := make([]*http.Request, requests)
	for i := range all {
		req := httptest.NewRequestWithContext(b.Context(), "GET", upstream.PathWhoami, http.NoBody)
		req.RemoteAddr = "127.0.0.1:1"
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i%250))
		req.Header.Set("Authorization", "Bearer "+w.login(false, anyMap{"user": fmt.Sprintf("@user%d:hs", i)}).text("access_token"))
		all[i] = req
	}
	var memory, goroutines float64
	for b.Loop() {
		w.forward(2 * testTTL)
		w.down.Store(true)
		w.service.CloseClientConnections()
		bytes, routines := usage()
		var running sync.WaitGroup
		for _, req := range all {
			running.Go(func() {
				rec := httptest.NewRecorder()
				if w.gateway.ServeHTTP(rec, req.Clone(req.Context())); rec.Code != http.StatusOK {
					b.Errorf("%d %s", rec.Code, rec.Body)
				}
			})
		}
		testkit.Eventually(b, "all requests wait", func() bool { return w.gateway.service.Waiting.Size() == requests })
		now, more := usage()
		memory += (now - bytes) / requests
		goroutines += (more - routines) / requests
		w.down.Store(false)
		running.Wait()
	}
	b.ReportMetric(memory/float64(b.N), "bytes/request")
	b.ReportMetric(goroutines/float64(b.N), "goroutines/request")
}

// usage returns the memory in use and the number of goroutines.
func usage() (bytes, goroutines float64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse), float64(runtime.NumGoroutine())
}
