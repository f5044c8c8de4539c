package server_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// idle is a request whose body is never sent.
type idle struct {
	conn net.Conn
	in   *bufio.Reader
}

const (
	announcedBody = 32 << 10
	continues     = "HTTP/1.1 100 Continue\r\n\r\n"
)

// idleRequest sends the headers of a request from an address.
func (w *world) idleRequest(from, path string, header ...string) *idle {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
	testkit.NoError(w.t, err)
	w.t.Cleanup(func() { conn.Close() })
	testkit.NoError(w.t, conn.SetDeadline(time.Now().Add(patience)))
	i := &idle{conn, bufio.NewReaderSize(conn, 512)}
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n%s\r\n",
		path, from, wire.ContentTypeForm, announcedBody, strings.Join(append(header, ""), "\r\n"))
	testkit.NoError(w.t, err)
	return i
}

// reading waits until the server reads the body.
func (i *idle) reading(t *testing.T) {
	t.Helper()
	got := make([]byte, len(continues))
	if _, err := io.ReadFull(i.in, got); err != nil || string(got) != continues {
		t.Fatalf("got %q, %v", got, err)
	}
}

// answered waits for the answer, after which the server must hang up.
func (i *idle) answered(t *testing.T) (status int) {
	t.Helper()
	resp, err := http.ReadResponse(i.in, nil)
	testkit.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	testkit.NoError(t, err)
	if _, err := i.in.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %d, the connection is not closed: %v", resp.StatusCode, err)
	}
	return resp.StatusCode
}

func behindProxy(c *server.Config) {
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
}

func (w *world) infoFrom(addr string, header ...string) int {
	w.t.Helper()
	return w.do(w.request(http.MethodGet, wire.PathInfo, "", append([]string{"X-Forwarded-For", addr}, header...)...)).status
}

// TestAttackIdleBodies holds as many requests without their bodies as it can,
// from two addresses. They cost little memory, and others are answered.
func TestAttackIdleBodies(t *testing.T) { // measures memory: not beside others
	const perAddress = 200
	w := newWorld(t, behindProxy, func(c *server.Config) { c.Limits = server.Limits{InFlight: 2*perAddress + 8, PerAddress: perAddress} })
	good := form("id64", b64(w.mint(caveat.ModeOpen)))
	w.post(wire.PathDischarge, good).discharge(t)
	attackers := []string{"192.0.2.1", "2001:db8::%x"}
	before := liveHeap()
	var all []*idle
	for n := range perAddress {
		for _, addr := range attackers {
			if strings.Contains(addr, "%") {
				addr = fmt.Sprintf(addr, n) // all of one /64
			}
			i := w.idleRequest(addr, wire.PathDischarge)
			i.reading(t)
			all = append(all, i)
		}
	}
	if grown, most := liveHeap()-before, int64(len(all))*announcedBody; grown > most {
		t.Errorf("%d idle requests hold %d bytes, more than %d", len(all), grown, most)
	}

	for _, addr := range []string{"192.0.2.1", "2001:db8::ffff"} {
		if got := w.infoFrom(addr); got != http.StatusServiceUnavailable {
			t.Errorf("%s: %d, one request more than it may have", addr, got)
		}
		if got := w.idleRequest(addr, wire.PathDischarge).answered(t); got != http.StatusServiceUnavailable {
			t.Errorf("%s: %d, one idle request more than it may have", addr, got)
		}
	}
	for name, header := range map[string][]string{
		"a neighbour":                {"X-Forwarded-For", "192.0.2.2"},
		"a neighbour on IPv6":        {"X-Forwarded-For", "2001:db8:1::1"},
		"a homeserver at an address": {"X-Forwarded-For", "192.0.2.1", "Authorization", "Bearer " + apiKey},
	} {
		if a := w.post(wire.PathDischarge, good, header...); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if text := scrape(t, w.admin.URL+wire.PathMetrics); !strings.Contains(text, `discharger_shed_requests_total{limit="per_address"} 4`) {
		t.Errorf("metrics: %s", text)
	}
	for _, i := range all {
		i.conn.Close()
	}
	testkit.Eventually(t, "the address is served again", func() bool { return w.infoFrom("192.0.2.1") == http.StatusOK })
}

// liveHeap returns the bytes on the heap that are in use.
func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestAttackManyAddresses has more idle requests than bodies can be read, from
// as many addresses. Requests without a body, and homeservers, are answered.
func TestAttackManyAddresses(t *testing.T) {
	t.Parallel()
	const inFlight = 16
	w := newWorld(t, behindProxy, func(c *server.Config) { c.Limits.InFlight = inFlight })
	for n := range inFlight {
		w.idleRequest(fmt.Sprint("192.0.2.", n), wire.PathDischarge).reading(t)
	}
	if got := w.idleRequest("198.51.100.1", wire.PathDischarge).answered(t); got != http.StatusServiceUnavailable {
		t.Errorf("one body more: %d", got)
	}
	if got := w.infoFrom("198.51.100.1"); got != http.StatusOK {
		t.Errorf("no body: %d", got)
	}
	good := form("id64", b64(w.mint(caveat.ModeOpen)))
	w.post(wire.PathDischarge, good, "Authorization", "Bearer "+apiKey).discharge(t)
}

// TestAttackManyNetworks has idle requests from the networks of one IPv6 /48. They
// leave room for others.
func TestAttackManyNetworks(t *testing.T) {
	t.Parallel()
	const inFlight = 16
	w := newWorld(t, behindProxy, func(c *server.Config) { c.Limits = server.Limits{InFlight: inFlight, PerAddress: 2} })
	for n := range inFlight / 4 {
		w.idleRequest(fmt.Sprintf("2001:db8:0:%x::1", n), wire.PathDischarge).reading(t)
	}
	if got := w.idleRequest("2001:db8:0:ffff::1", wire.PathDischarge).answered(t); got != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", got)
	}
	w.idleRequest("2001:db8:1::1", wire.PathDischarge).reading(t)
}

// TestReservedPlaces fills all places that clients may have with requests that
// wait for the store. Those that are left are for homeservers.
func TestReservedPlaces(t *testing.T) {
	t.Parallel()
	const inFlight = 8
	w := newWorld(t, func(c *server.Config) { c.Limits.InFlight = inFlight })
	good := form("id64", b64(w.mint(caveat.ModeOpen)))
	w.store.set(nil, true)
	for range inFlight - inFlight/4 {
		conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
		testkit.NoError(t, err)
		defer conn.Close()
		testkit.NoError(t, w.request(http.MethodPost, wire.PathDischarge+"?"+good.Encode(), "").Write(conn))
	}
	info := func(header ...string) int {
		return w.do(w.request(http.MethodGet, wire.PathInfo, "", header...)).status
	}
	testkit.Eventually(t, "clients have all of their places", func() bool { return info() == http.StatusServiceUnavailable })
	if got := info("Authorization", "Bearer "+apiKey); got != http.StatusOK {
		t.Errorf("a homeserver: %d", got)
	}
	if got := info("Authorization", "Bearer wrong"); got != http.StatusServiceUnavailable {
		t.Errorf("an unknown key: %d", got)
	}
}

// TestLateBody sends bodies that do not arrive within the request's deadline.
// They are undecided, and hold no place. Time is not real in here.
func TestLateBody(t *testing.T) {
	t.Parallel()
	for name, trickle := range map[string]bool{"nothing": false, "a byte now and then": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				bolt, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "sessions.db")})
				testkit.NoError(t, err)
				t.Cleanup(func() { bolt.Close() })
				const limit = 2 * time.Second
				w, cfg := newUnserved(t, bolt, slog.LevelError, func(c *server.Config) { c.Timeout, c.Limits.InFlight = limit, 1 })
				w.http = servePiped(t, server.HTTPServer(w.server.Client(), cfg.Log), time.Minute)
				body, late := io.Pipe()
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for trickle {
						time.Sleep(limit / 8)
						if _, err := late.Write([]byte("x")); err != nil {
							return
						}
					}
				}()
				r, err := http.NewRequest(http.MethodPost, w.http.URL+wire.PathDischarge, body)
				testkit.NoError(t, err)
				r.ContentLength = announcedBody
				r.Header.Set("Content-Type", wire.ContentTypeForm)
				start, done := time.Now(), make(chan answer)
				go func() { done <- w.do(r) }()
				synctest.Wait()
				if a := w.do(w.request(http.MethodGet, wire.PathInfo, "")); a.status != http.StatusOK {
					t.Errorf("meanwhile: %d %s", a.status, a.body)
				}
				a := <-done
				if took := time.Since(start); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || took != limit {
					t.Errorf("after %v: %d %v %s", took, a.status, a.header, a.body)
				}
				late.Close()
				<-sent
			})
		})
	}
}

// TestHangUps: clients that hang up in the middle of a body do not count as
// failing.
func TestHangUps(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stopped)
	for range failureLimit + 1 {
		i := w.idleRequest("192.0.2.1", wire.PathDischarge)
		i.reading(t)
		testkit.NoError(t, i.conn.(*net.TCPConn).CloseWrite())
		if got := i.answered(t); got != http.StatusServiceUnavailable {
			t.Fatalf("got %d", got)
		}
	}
	if a := w.post(wire.PathDischarge, form("id", "x")); a.status != http.StatusBadRequest {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// TestUnreadBodies sends a body where none is read, or too large a one. The
// answer does not wait for it.
func TestUnreadBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, c := range map[string]struct {
		path, header string
		want         int
	}{
		"no such path":           {"/nowhere", "X: y", http.StatusNotFound},
		"another method":         {wire.PathInfo, "X: y", http.StatusMethodNotAllowed},
		"an API key is missing":  {wire.PathSeen, "X: y", http.StatusUnauthorized},
		"an API key is unknown":  {wire.PathRevoke, "Authorization: Bearer wrong", http.StatusUnauthorized},
		"feed, without a key":    {wire.PathRevocations, "X: y", http.StatusMethodNotAllowed},
		"compressed, never sent": {"/nowhere", "Content-Encoding: gzip", http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := w.idleRequest("192.0.2.1", c.path, c.header).answered(t); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

// TestLargeBodies has homeservers send as many large bodies as are kept at a
// time. One more is put off, and a small one is not.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const key = "Authorization: Bearer " + apiKey
	part := make([]byte, announcedBody-1)
	for range 64 {
		i := w.idleRequest("192.0.2.1", wire.PathSeen, key)
		i.reading(t)
		_, err := i.conn.Write(part)
		testkit.NoError(t, err)
	}
	const shed = `discharger_shed_requests_total{limit="reading"} `
	testkit.Eventually(t, "one more is put off", func() bool {
		i := w.idleRequest("192.0.2.1", wire.PathSeen, key)
		i.reading(t)
		_, _ = i.conn.Write(part) // the server may have answered, and closed the connection
		_ = i.conn.(*net.TCPConn).CloseWrite()
		if got := i.answered(t); got != http.StatusServiceUnavailable {
			t.Fatalf("not all of a body: %d", got)
		}
		text := scrape(t, w.admin.URL+wire.PathMetrics)
		return strings.Contains(text, shed) && !strings.Contains(text, shed+"0")
	})
	small := w.request(http.MethodPost, wire.PathSeen, `{"seen":[]}`, "Authorization", "Bearer "+apiKey)
	if a := w.do(small); a.status != http.StatusOK {
		t.Errorf("a small body: %d %s", a.status, a.body)
	}
}
