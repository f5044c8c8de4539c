package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// raw sends a request as written, and returns the request that the homeserver received.
func (w *world) rawRequest(line string, header ...string) (status int) {
	w.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.http.URL, "http://"))
	testkit.NoError(w.t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: matrix.example\r\nConnection: close\r\n%s\r\n", line, strings.Join(append(header, ""), "\r\n"))
	testkit.NoError(w.t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	testkit.NoError(w.t, err)
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// Paths and queries are forwarded byte by byte.
func TestByteExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	for _, uri := range []string{
		"/_matrix/client/v3/rooms/!a:b/state", "/_matrix/client/v3/rooms/%21a%3Ab/state", "/_matrix/client/v3/rooms/!a:b/state/t/%2F",
		"/_matrix/client/v3/rooms//x", "/_matrix/client/v3/x/", "/_matrix/client/v3/user/@u:hs/filter/1", "/_matrix/client/v3/a%20b+c", "/_matrix/client/v3/a'b(c)*",
		"/_matrix/client/v3/%e4%c3%BC", "/?", "/", "/a?b?c", `/_matrix/client/v3/sync?filter={"a":[1]}|^`, "/_matrix/client/v3/.x/..y/z.",
		"/_matrix/client/v3/sync?filter=%7B%22a%22%3A1%7D&since=s1_2~3&x=;y&&z=", "/_matrix/client/v3/x?a=b;c=d", "/_matrix/client/v3/x?%zz&a", "/a?",
		"/_matrix/client/v3/x?a=%26&a=&a", "/_matrix/client/v3/rooms/a/state/t/login", "/_matrix/client/v3/devices/refresh", "/_matrix/client/v3/login/get_token",
		"/_matrix/static/client/login/", "/_matrix/federation/v1/event/%24a%2F%2Fb", "/_matrix/client/v3/register/available?username=login",
	} {
		before := w.hs.count()
		status := w.rawRequest("GET "+uri, "Authorization: Bearer "+token)
		if w.hs.count() != before+1 {
			t.Errorf("%s did not arrive: %d", uri, status)
			continue
		}
		if last := w.hs.last(t); last.URI != uri {
			t.Errorf("sent    %s\narrived %s", uri, last.URI)
		}
	}
}

// A target that is malformed, or that a homeserver could resolve to a route that hands
// out tokens, is not forwarded.
func TestDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.hs.count()
	for status, uris := range map[int][]string{
		400: {
			"//_matrix/client/v3/login", "/_matrix/client/v3/./login", "/_matrix/client/x/../v3/login", "/_matrix/client/v3/login/.",
			"/_matrix/client/v3/rooms/%2E%2E/login", "/_matrix/client/v3/rooms%2F..%2Flogin", "/x/../_matrix/client/v3/login",
			"/_matrix/federation/../client/v3/login", "/_synapse/client/%2e%2e/admin/v1/register", `/_matrix/client/v3\login`,
			"/_matrix/client/v3/login#x", "http://matrix.example/_matrix/client/v3/login", "/_matrix/client/v3/ä", "/_matrix/client/v3/sync?a=#b",
			`/_matrix/client/v3/a"b`, "/_matrix/client/v3/a{b}",
		},
		404: {
			"/_matrix/client/v3/%6Cogin", "/_matrix/client/v3/log%69n", "/_matrix/client/v3//login", "/_matrix//client/v3/login",
			"/_matrix/client/v3/login/", "/_matrix/client/v1/login", "/_matrix/client/v4/login", "/_matrix/client/unstable/org.x/login",
			"/_matrix/client/v3/LOGIN", "/_matrix/client/v3/Refresh", "/_matrix/client/v2/refresh", "/_matrix/client/v3%2Flogin",
			"/_matrix/client/%76%33/register", "/_synapse/admin/v2/register", "/_synapse/admin/v1/%72egister", "/_dendrite/admin/register",
			"/%5Fmatrix/client/v3/login", "/_matrix/client/v3/refresh//", "/_synapse/client/%6cogin", "/_matrix/client/v3/%6Cogout", "/logout",
		},
	} {
		for _, uri := range uris {
			if got := w.rawRequest("POST " + uri); got != status {
				t.Errorf("%s: %d", uri, got)
			}
		}
	}
	for _, method := range []string{"PUT", "PATCH", "DELETE"} {
		for _, name := range []string{"login", "register", "refresh", "logout", "logout/all"} {
			if status := w.rawRequest(method + " /_matrix/client/v3/" + name); status != 405 {
				t.Errorf("%s %s: %d", method, name, status)
			}
		}
	}
	for _, method := range []string{"TRACE", "TRACK", "PROPFIND"} {
		if status := w.rawRequest(method + " /_matrix/client/v3/x"); status != 405 {
			t.Errorf("%s: %d", method, status)
		}
	}
	if n := w.hs.count() - before; n > 0 {
		t.Errorf("%d requests forwarded, the last %s", n, w.hs.last(t).URI)
	}
}

// Forwarding headers are accepted from trusted proxies only, and the homeserver gets
// one address.
func TestForwardedHeaders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		trusted       bool
		in            []string
		addr, proto   string
		forwardedHost string
	}{
		{"untrusted", false, []string{"X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Real-IP: 192.0.2.1", "Forwarded: for=192.0.2.1", "X-Forwarded-Host: evil"}, "127.0.0.1", "http", "matrix.example"},
		{"trusted", true, []string{"X-Forwarded-For: 203.0.113.9, 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: h.example"}, "192.0.2.1", "https", "h.example"},
		{"trusted chain", true, []string{"X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 192.0.2.1, 127.0.0.1", "X-Real-IP: 203.0.113.9"}, "192.0.2.1", "http", "matrix.example"},
		{"trusted, with a port", true, []string{"X-Forwarded-For: 192.0.2.1:50111"}, "192.0.2.1", "http", "matrix.example"},
		{"trusted, in brackets", true, []string{"X-Forwarded-For: [2001:db8::7]:443, [::1]"}, "::1", "http", "matrix.example"},
		{"nonsense", true, []string{"X-Forwarded-For: x"}, "127.0.0.1", "http", "matrix.example"},
		{"none", true, nil, "127.0.0.1", "http", "matrix.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) {
				if c.trusted {
					w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
				}
			})
			w.rawRequest("GET /_matrix/client/versions", c.in...)
			h := w.hs.last(t).Header
			if got := h["X-Forwarded-For"]; len(got) != 1 || got[0] != c.addr || h.Get("X-Real-Ip") != c.addr {
				t.Errorf("from %v, %s", got, h.Get("X-Real-Ip"))
			}
			if h.Get("X-Forwarded-Proto") != c.proto || h.Get("X-Forwarded-Host") != c.forwardedHost || h.Get("Forwarded") != "" {
				t.Errorf("%v", h)
			}
		})
	}
}

// Every malformed X-Forwarded-For is counted, and the first is logged.
func TestForwardedMalformed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for range 3 {
		w.rawRequest("GET /_matrix/client/versions", "X-Forwarded-For: 192.0.2.1, unknown")
	}
	const want = "discharger_gateway_forwarded_malformed_total 3"
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(w.reg, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(rec.Body.String(), want) {
		t.Errorf("no %q in the metrics", want)
	}
	if n := strings.Count(w.log.String(), "X-Forwarded-For not understood"); n != 1 {
		t.Errorf("%d warnings: %s", n, w.log.String())
	}
}

// Without the homeserver the response is a 502 with CORS headers that ends no session.
func TestHomeserverDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	w.hs.leave()
	a := w.want(w.do("GET", upstream.PathWhoami, token, nil), 502, matrix.CodeUnknown)
	if a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%v", a.header)
	}
}

// megabytes returns the size of the large file: DISCHARGER_TEST_LARGE_MB, or enough to
// show that it is not buffered.
func megabytes(t *testing.T) int64 {
	mb := 24
	if text := os.Getenv("DISCHARGER_TEST_LARGE_MB"); text != "" {
		var err error
		mb, err = strconv.Atoi(text)
		testkit.NoError(t, err)
	}
	return int64(mb) << 20
}

// pattern is a generated file, never in memory as a whole.
type pattern struct{ at int64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.at * 131 >> 3)
		p.at++
	}
	return len(b), nil
}

// Large files are forwarded unchanged in little memory.
func TestLargeBodies(t *testing.T) {
	w := newWorld(t)
	token := w.login(false).text("access_token")
	size := megabytes(t)
	want := sha256.New()
	_, _ = io.CopyN(want, &pattern{}, size)
	var uploaded []byte
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			h := sha256.New()
			_, _ = io.Copy(h, r.Body)
			uploaded = h.Sum(nil)
			return
		}
		rw.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = io.CopyN(rw, &pattern{}, size)
	}
	peak, stop := watchHeap()
	req, err := http.NewRequest("POST", w.http.URL+"/_matrix/media/v3/upload", io.LimitReader(&pattern{}, size))
	testkit.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	req.ContentLength = size
	w.want(w.send(req), 200, "")
	req, err = http.NewRequest("GET", w.http.URL+"/_matrix/client/v1/media/download/hs/x", nil)
	testkit.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	testkit.NoError(t, err)
	defer resp.Body.Close()
	got := sha256.New()
	n, err := io.Copy(got, resp.Body)
	stop()
	if err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) || !bytes.Equal(uploaded, want.Sum(nil)) {
		t.Errorf("%d bytes: %v", n, err)
	}
	t.Logf("%d MB each way, heap grew by up to %d KB", size>>20, *peak>>10)
	if *peak > size/2 {
		t.Errorf("the heap grew by %d bytes", *peak)
	}
}

// watchHeap measures the growth of the heap until stop.
func watchHeap() (peak *int64, stop func()) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	start := int64(m.HeapAlloc)
	peak = new(int64)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-tick.C:
				runtime.ReadMemStats(&m)
				*peak = max(*peak, int64(m.HeapAlloc)-start)
			case <-done:
				tick.Stop()
				return
			}
		}
	}()
	return peak, func() { close(done); <-ended }
}

// Long polls have no deadline and take little memory.
func TestLongPolls(t *testing.T) {
	w := newWorld(t)
	const polls = 200
	token := w.login(false).text("access_token")
	var waiting sync.WaitGroup
	waiting.Add(polls)
	release := make(chan struct{})
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
		waiting.Done()
		<-release
		_, _ = rw.Write([]byte(`{"next_batch":"x"}`))
	}
	peak, stop := watchHeap()
	results := make(chan int, polls)
	for range polls {
		go func() {
			req, err := http.NewRequest("GET", w.http.URL+"/_matrix/client/v3/sync?timeout=30000", nil)
			if err != nil {
				results <- 0
				return
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				results <- 0
				return
			}
			_ = resp.Body.Close()
			results <- resp.StatusCode
		}()
	}
	waiting.Wait()
	stop()
	close(release)
	for range polls {
		if status := <-results; status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	t.Logf("%d polls, client and homeserver included: heap grew by up to %d KB each", polls, *peak/polls>>10)
	if *peak > polls<<20 {
		t.Errorf("the heap grew by %d bytes", *peak)
	}
}

// A response is forwarded piece by piece.
func TestStreaming(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := make(chan struct{})
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
		_, _ = rw.Write([]byte("first "))
		_ = http.NewResponseController(rw).Flush()
		<-second
		_, _ = rw.Write([]byte("second"))
	}
	resp, err := http.Get(w.http.URL + "/_matrix/client/v3/x")
	testkit.NoError(t, err)
	defer resp.Body.Close()
	b := make([]byte, 6)
	_, err = io.ReadFull(resp.Body, b)
	testkit.NoError(t, err)
	close(second)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(b)+string(rest) != "first second" {
		t.Errorf("%s%s, %v", b, rest, err)
	}
}
