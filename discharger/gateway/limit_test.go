package gateway

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// limited is a limiter with a clock of its own, and small bounds.
type limited struct {
	*limiter
	time time.Time
}

func newLimited() *limited {
	l := &limited{time: time.Unix(1_800_000_000, 0)}
	l.limiter = newLimiter(Limits{Requests: 5, RequestsPerAddress: 2, Lasting: 4, LastingPerAddress: 3}, func() time.Time { return l.time })
	return l
}

// take takes places for requests from addresses, and returns those that got one.
func (l *limited) takeAll(t *testing.T, s span, want string, from ...string) (taken []*place) {
	t.Helper()
	got := ""
	for _, a := range from {
		var addr netip.Addr
		if a != "" {
			addr = netip.MustParseAddr(a)
		}
		p := new(place)
		if l.take(p, peerOf(addr), s) {
			got += "y"
			taken = append(taken, p)
		} else {
			got += "n"
		}
	}
	if got != want {
		t.Errorf("%v: got %s, want %s", from, got, want)
	}
	return taken
}

const (
	addrA, addrB, addrC = "192.0.2.1", "192.0.2.2", "192.0.2.3"
	addrSix             = "2001:db8::1"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		span span
		want string
		from []string
	}{
		{"one address", brief, "yyn", []string{addrA, addrA, addrA}},
		{"others beside it", brief, "yynyy", []string{addrA, addrA, addrA, addrB, addrB}},
		{"all", brief, "yyyyyn", []string{addrA, addrA, addrB, addrB, addrC, addrC}},
		{"IPv6 counts by /64", brief, "yyny", []string{addrSix, "2001:db8::ffff:1:2:3", "2001:db8::2", "2001:db8:1::1"}},
		{"and by /48", brief, "yyny", []string{addrSix, "2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:1::1"}},
		{"loopback has no bound but that of all", brief, "yyyyyn", []string{"127.0.0.1", "127.0.0.1", "127.0.0.1", "::1", "127.0.0.1", addrA}},
		{"private networks likewise", brief, "yyyyyn", []string{"10.0.0.1", "10.0.0.1", "10.0.0.1", "fd00::1", "192.168.0.1", "10.0.0.1"}},
		{"a socket likewise", brief, "yyyyyn", []string{"", "", "", "", "", ""}},
		{"lasting ones of one address count as brief beyond", lasting, "yyyyyn", []string{addrA, addrA, addrA, addrA, addrA, addrA}},
		{"all lasting ones", lasting, "yyyyyyyyyn", []string{"", "", "", "", "", "", "", "", "", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLimited()
			all := l.takeAll(t, c.span, c.want, c.from...)
			for _, p := range all {
				p.release()
				p.release()
			}
			l.empty(t)
			for _, p := range l.takeAll(t, c.span, c.want, c.from...) {
				p.release()
			}
		})
	}
}

// empty checks that nothing is counted and nothing is kept.
func (l *limited) empty(t *testing.T) {
	t.Helper()
	if l.all != [spans]int{} || len(l.peers) > 0 || l.first != nil || l.last != nil {
		t.Errorf("left: %v %v %v %v", l.all, l.peers, l.first, l.last)
	}
}

// A brief request that lasts makes room for others, as long as there is room among
// the lasting ones.
func TestLastingRequestsMakeRoom(t *testing.T) {
	t.Parallel()
	l := newLimited()
	var all []*place
	take := func(want string, from ...string) {
		t.Helper()
		all = append(all, l.takeAll(t, brief, want, from...)...)
	}
	take("yyn", addrA, addrA, addrA)
	l.time = l.time.Add(lastingAfter)
	take("yyn", addrA, addrA, addrA) // 2 lasting
	l.time = l.time.Add(lastingAfter)
	take("yn", addrA, addrA) // 3 lasting, as many as it may have
	l.time = l.time.Add(lastingAfter)
	take("nyy", addrA, addrB, addrB)
	if l.busy(lasting) != 3 || l.busy(brief) != 4 {
		t.Errorf("%d lasting, %d brief", l.busy(lasting), l.busy(brief))
	}
	for _, p := range all {
		p.release()
	}
	l.empty(t)
}

// A request that waits for something gives its place back, and takes it again.
func TestPlaceGivenBack(t *testing.T) {
	t.Parallel()
	l := newLimited()
	all := l.takeAll(t, brief, "yy", addrA, addrA)
	all[0].release()
	other := l.takeAll(t, brief, "yn", addrA, addrA)
	if all[0].acquire() {
		t.Error("there was no place")
	}
	all[0].release() // at the end of the request: it has none
	other[0].release()
	for range 2 { // of which the second takes none
		if !all[0].acquire() {
			t.Error("there is a place")
		}
	}
	all[0].release()
	all[1].release()
	l.empty(t)
	var none place
	if !none.acquire() {
		t.Error("a request without a limiter has no bound")
	}
	none.release()
}

// Whatever comes and goes, counts are right.
func TestLimiterCounts(t *testing.T) {
	t.Parallel()
	l := newLimited()
	r := rand.New(rand.NewPCG(1, 2))
	addrs := []netip.Addr{netip.MustParseAddr(addrA), netip.MustParseAddr(addrB), netip.MustParseAddr(addrSix), {}}
	all := make([]place, 40)
	for range 20_000 {
		p := &all[r.IntN(len(all))]
		switch r.IntN(4) {
		case 0:
			if !p.taken {
				l.take(p, peerOf(addrs[r.IntN(len(addrs))]), span(r.IntN(2)))
			}
		case 1:
			p.acquire()
		case 2:
			p.release()
		case 3:
			l.time = l.time.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		}
		var want [spans]int
		for i := range all {
			if all[i].taken {
				want[all[i].span]++
			}
		}
		if l.all != want || l.all[brief] > 5 || l.all[lasting] > 4 {
			t.Fatalf("counted %v, want %v", l.all, want)
		}
	}
	for i := range all {
		all[i].release()
	}
	l.empty(t)
}

// An address that has as many requests as it may is told to wait. Its long polls
// count apart, and others are served.
func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) {
		w.stopped = time.Now() // so that no request lasts
		w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		w.cfg.Limits = Limits{RequestsPerAddress: 3, LastingPerAddress: 2}
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
		if waiting.Load() && r.Header.Get("X-Forwarded-For") == addrA {
			arrived <- struct{}{}
			<-release
		}
		fmt.Fprint(rw, "{}")
	}
	ended := make(chan int)
	begin := func(path string) {
		req := w.request("GET", path, token, nil)
		req.Header.Set("X-Forwarded-For", addrA)
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
	a := w.want(from(addrA, "GET", some, token, nil), 429, "M_LIMIT_EXCEEDED")
	if ms, _ := a.body["retry_after_ms"].(float64); ms != 5000 || a.header.Get("Retry-After") != "5" || a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%v %s", a.header, a.raw)
	}
	a = from(addrA, "POST", pathRefresh, "", anyMap{"refresh_token": refresh})
	if a.status != 503 || a.header.Get("Retry-After") != "5" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("refresh: %d %v", a.status, a.header)
	}
	w.want(from(addrB, "GET", some, token, nil), 200, "")
	w.want(from("", "GET", some, token, nil), 200, "") // a proxy that says nothing
	for range 2 {
		begin("/_matrix/client/v3/sync?timeout=30000")
	}
	w.want(from(addrA, "GET", "/_matrix/client/v3/sync?timeout=30000", token, nil), 429, "M_LIMIT_EXCEEDED")
	waiting.Store(false)
	close(release)
	for range 5 {
		if status := <-ended; status != 200 {
			t.Errorf("status %d", status)
		}
	}
	eventually(t, "the places are given back", func() bool { return w.gateway.limiter.busy(brief)+w.gateway.limiter.busy(lasting) == 0 })
	for range 4 {
		w.want(from(addrA, "GET", some, token, nil), 200, "")
	}
	w.want(from(addrA, "POST", pathRefresh, "", anyMap{"refresh_token": refresh}), 200, "")
}

// A request that waits counts for the peer for which it counted before.
func TestBoundOf(t *testing.T) {
	t.Parallel()
	g := new(Gateway)
	g.current.Store(&Config{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}})
	for _, c := range []struct{ client, want string }{
		{addrA, addrA + "/32"},
		{"2001:db8::1", "2001:db8::/64"},
		{"203.0.113.9", ""}, // a proxy that says nothing
		{"10.0.0.1", ""},
	} {
		t.Run(c.client, func(t *testing.T) {
			t.Parallel()
			x := &exchange{client: netip.MustParseAddr(c.client)}
			want := netip.Prefix{}
			if c.want != "" {
				want = netip.MustParsePrefix(c.want)
			}
			if got := g.boundOf(x.client); got != want {
				t.Errorf("%v", got)
			}
			if got := g.waiterFor(x, nil).peer; got != want {
				t.Errorf("waiting: %v", got)
			}
		})
	}
}
