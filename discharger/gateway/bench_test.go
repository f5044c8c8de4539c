package gateway

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/clientaddr"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// BenchmarkCPU compares the CPU time of a request through the gateway with that through
// a bare httputil.ReverseProxy, with a short token of the homeserver. Client, proxy and
// homeserver share one process; the time of client and homeserver alone is measured and
// subtracted. The rounds alternate, so that load on the machine affects both.
//
//	go test -run - -bench CPU -benchtime 20x ./discharger/gateway
func BenchmarkCPU(b *testing.B) {
	w := newWorld(b, func(w *world) { w.cfg.Log = nil })
	held, rotate := w.login(false).text("access_token"), w.login(true).text("access_token")
	answer := []byte(`{"next_batch":"s1_2_3","rooms":{"join":{}}}`)
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write(answer)
	}
	target, err := url.Parse(w.hs.URL)
	testkit.NoError(b, err)
	bare := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(target); p.SetXForwarded() },
		Transport: upstream.NewTransport(nil), FlushInterval: -1, BufferPool: &buffers{},
	})
	b.Cleanup(bare.Close)
	client := &http.Client{Transport: upstream.NewTransport(nil)}
	const short = "syt_dXNlcg_abcdefghijklmnopqrst_1a2b3c"
	ways := []struct{ name, url, token string }{
		{"direct", w.hs.URL, short}, {"bare", bare.URL, short}, {"held", w.http.URL, held}, {"rotate", w.http.URL, rotate}, {"foreign", w.http.URL, short},
	}
	total := make(map[string]time.Duration)
	const requests, workers = 400, 8
	for _, way := range ways {
		load(b, client, way.url, way.token, requests, workers) // to warm up
	}
	b.ResetTimer()
	for range b.N {
		for _, way := range ways {
			start := cpuTime(b)
			load(b, client, way.url, way.token, requests, workers)
			total[way.name] += cpuTime(b) - start
		}
	}
	b.StopTimer()
	perRequest := func(name string) float64 { return float64(total[name].Microseconds()) / float64(b.N*requests) }
	direct := perRequest("direct")
	b.ReportMetric(direct, "direct-µs")
	b.ReportMetric(perRequest("bare")-direct, "bare-µs")
	for _, name := range []string{"held", "rotate", "foreign"} {
		b.ReportMetric((perRequest(name)-direct)/(perRequest("bare")-direct), name+"/bare")
	}
}

func load(b *testing.B, client *http.Client, base, token string, requests, workers int) {
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range requests / workers {
				req, err := http.NewRequest("GET", base+"/_matrix/client/v3/sync?since=s1_2_3&timeout=0", nil)
				if err != nil {
					b.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+token)
				resp, err := client.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != 200 {
					b.Errorf("status %d", resp.StatusCode)
				}
			}
		})
	}
	all.Wait()
}

// cpuTime returns the CPU time of the process.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkIdentify measures the gateway's own work per request: verifying its token.
func BenchmarkIdentify(b *testing.B) {
	w := newWorld(b, func(w *world) { w.cfg.Log = nil })
	for name, token := range map[string]string{
		"held": w.login(false).text("access_token"), "rotate": w.login(true).text("access_token"), "foreign": "syt_abcdefg_hijklmnopqrstuvwxyz_123456",
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/_matrix/client/v3/sync?since=s1_2_3", nil)
			b.ReportAllocs()
			for b.Loop() {
				r.Header["Authorization"] = []string{"Bearer " + token}
				x := &exchange{method: "GET", client: clientaddr.Peer(r)}
				f := x.matchRoute(r)
				if f == nil {
					f = w.gateway.identify(r, x)
				}
				if f != nil {
					b.Fatal(f.Message)
				}
			}
		})
	}
}
