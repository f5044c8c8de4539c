package gateway

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/testkit"
)

// An address at its limit of concurrent requests gets 429. Long polls have a limit of
// their own, and other addresses are served.
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) {
		w.stopped = time.Now() // requests take no time
		w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		w.cfg.Limits = admission.Limits{RequestsPerAddress: 3, LastingPerAddress: 2}
	})
	from := func(addr, method, path, token string, body any) answer {
		req := w.request(method, path, token, body)
		if addr != "" {
			req.Header.Set("X-Forwarded-For", addr)
		}
		return w.send(req)
	}
	token := w.login(false).text("access_token")
	refresh := w.login(true).text("refresh_token")
	arrived, release := make(chan struct{}), make(chan struct{})
	var waiting atomic.Bool
	waiting.Store(true)
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
		if waiting.Load() && r.Header.Get("X-Forwarded-For") == clientA {
			arrived <- struct{}{}
			<-release
		}
		fmt.Fprint(rw, "{}")
	}
	ended := make(chan int)
	begin := func(path string) {
		req := w.request("GET", path, token, nil)
		req.Header.Set("X-Forwarded-For", clientA)
		go func() {
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				ended <- 0
				return
			}
			resp.Body.Close()
			ended <- resp.StatusCode
		}()
		<-arrived
	}
	const some = "/_matrix/client/v3/joined_rooms"
	for range 3 {
		begin(some)
	}
	a := w.want(from(clientA, "GET", some, token, nil), 429, "M_LIMIT_EXCEEDED")
	if ms, _ := a.body["retry_after_ms"].(float64); ms != 5000 || a.header.Get("Retry-After") != "5" || a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%v %s", a.header, a.raw)
	}
	a = from(clientA, "POST", pathRefresh, "", anyMap{"refresh_token": refresh})
	if a.status != 503 || a.header.Get("Retry-After") != "5" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("refresh: %d %v", a.status, a.header)
	}
	w.want(from(clientB, "GET", some, token, nil), 200, "")
	w.want(from("", "GET", some, token, nil), 200, "") // a proxy without X-Forwarded-For
	for range 2 {
		begin("/_matrix/client/v3/sync?timeout=30000")
	}
	w.want(from(clientA, "GET", "/_matrix/client/v3/sync?timeout=30000", token, nil), 429, "M_LIMIT_EXCEEDED")
	waiting.Store(false)
	close(release)
	for range 5 {
		if status := <-ended; status != 200 {
			t.Errorf("status %d", status)
		}
	}
	testkit.Eventually(t, "all places are free", func() bool {
		return w.gateway.limiter.Busy(admission.Brief)+w.gateway.limiter.Busy(admission.Lasting) == 0
	})
	for range 4 {
		w.want(from(clientA, "GET", some, token, nil), 200, "")
	}
	w.want(from(clientA, "POST", pathRefresh, "", anyMap{"refresh_token": refresh}), 200, "")
}

// A waiting request counts for the same network as a running one.
func TestLimitKey(t *testing.T) {
	t.Parallel()
	g := new(Gateway)
	g.current.Store(&Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}})
	for _, c := range []struct{ client, want string }{
		{clientA, clientA + "/32"},
		{"2001:db8::1", "2001:db8::/64"},
		{"203.0.113.9", ""}, // a proxy without X-Forwarded-For
		{"10.0.0.1", ""},
	} {
		t.Run(c.client, func(t *testing.T) {
			t.Parallel()
			x := &exchange{client: netip.MustParseAddr(c.client)}
			want := netip.Prefix{}
			if c.want != "" {
				want = netip.MustParsePrefix(c.want)
			}
			if got := g.limitKey(x.client); got != want {
				t.Errorf("%v", got)
			}
			if got := g.waiterFor(x, nil).Peer; got != want {
				t.Errorf("waiting: %v", got)
			}
		})
	}
}

const (
	clientA, clientB = "192.0.2.1", "192.0.2.2"
)
