package server_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

const connections = 64

// BenchmarkHTTP is the whole path of a discharge over HTTP, on 64 connections
// that are kept open, beside the bakery library's own discharger, which has no
// sessions. Client and server share the process, so the client is a lean
// one: it writes prepared requests and only looks for the end of the answer.
func BenchmarkHTTP(b *testing.B) {
	b.Run("bakery", func(b *testing.B) {
		key := bakery.MustGenerateKey()
		d := httpbakery.NewDischarger(httpbakery.DischargerParams{
			Key: key,
			Checker: httpbakery.ThirdPartyCaveatCheckerFunc(func(context.Context, *http.Request, *bakery.ThirdPartyCaveatInfo, *httpbakery.DischargeToken) ([]checkers.Caveat, error) {
				return nil, nil
			}),
		})
		mux := http.NewServeMux()
		d.AddMuxHandlers(mux, "/")
		srv := httptest.NewServer(mux)
		defer srv.Close()
		w := newWorld(b)
		w.hs = w.homeserverFor(caveat.PublicKey(key.Public.Key), srv.URL)
		load(b, srv.Listener.Addr(), func(int) stream { return repeat(form("id64", b64(w.mint(caveat.ModeOpen)))) })
	})
	for _, s := range stores() {
		b.Run("open/"+s.name, func(b *testing.B) {
			w := s.world(b)
			load(b, w.http.Listener.Addr(), func(int) stream { return repeat(form("id64", b64(w.mint(caveat.ModeOpen)))) })
		})
		b.Run("rotate/"+s.name, func(b *testing.B) {
			w := s.world(b)
			load(b, w.http.Listener.Addr(), func(int) stream { return w.refreshing() })
		})
	}
}

type benchStore struct {
	name string
	open func(testing.TB) store.Store
}

func (s benchStore) world(b *testing.B) *world { return newWorldOn(b, s.open(b), slog.LevelWarn) }

func stores() []benchStore {
	return []benchStore{
		{"bolt", func(t testing.TB) store.Store {
			st, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "sessions.db")})
			testkit.NoError(t, err)
			t.Cleanup(func() { st.Close() })
			return st
		}},
		{"redis", func(t testing.TB) store.Store {
			st, err := redis.Open(t.Context(), redis.Config{
				Addrs: []string{redistest.Start(t).Socket}, TagKey: make([]byte, 32),
			})
			testkit.NoError(t, err)
			t.Cleanup(func() { st.Close() })
			return st
		}},
	}
}

// A stream makes the next request from the last answer, nil at first.
type stream func(last []byte) url.Values

func repeat(v url.Values) stream { return func([]byte) url.Values { return v } }

// refreshing is a client of a rotating session.
func (w *world) refreshing() stream {
	v := form("id64", b64(w.mint(caveat.ModeRotate)))
	return func(last []byte) url.Values {
		if last != nil {
			_, rest, ok := bytes.Cut(last, []byte(`"RefreshToken":"`))
			token, _, ok2 := bytes.Cut(rest, []byte(`"`))
			if !ok || !ok2 {
				w.t.Errorf("no refresh token in %s", last)
			}
			v.Set("token64", string(token))
			v.Set("token-kind", "refresh")
		}
		return v
	}
}

func load(b *testing.B, addr net.Addr, client func(n int) stream) {
	b.Helper()
	conns := make([]*rawConn, connections)
	streams := make([]stream, connections)
	for i := range conns {
		c, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		conns[i], streams[i] = &rawConn{c: c, r: bufio.NewReader(c)}, client(i)
	}
	work := make(chan struct{}, connections)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	var wg sync.WaitGroup
	for i := range conns {
		wg.Go(func() {
			var last []byte
			for range work {
				var err error
				if last, err = conns[i].post(streams[i](last)); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
}

// cpu is the time that this process has computed, in nanoseconds: of the
// server, and of the client that is the same in every benchmark. On a machine
// that is busy with other things it is more exact than ns/op.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

type rawConn struct {
	c   net.Conn
	r   *bufio.Reader
	out []byte
	in  []byte
}

// post sends one form and returns the body of the answer, valid until the next.
func (c *rawConn) post(v url.Values) ([]byte, error) {
	body := v.Encode()
	c.out = fmt.Appendf(c.out[:0], "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nBakery-Protocol-Version: 3\r\nContent-Length: %d\r\n\r\n%s",
		wire.PathDischarge, wire.ContentTypeForm, len(body), body)
	if _, err := c.c.Write(c.out); err != nil {
		return nil, err
	}
	status, length := "", -1
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if status == "" {
			status = string(line[9:12])
		}
		if n, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			length, _ = strconv.Atoi(string(bytes.TrimSpace(n)))
		}
		if len(line) == 2 {
			break
		}
	}
	if length < 0 {
		return nil, fmt.Errorf("an answer without a length, status %s", status)
	}
	c.in = append(c.in[:0], make([]byte, length)...)
	if _, err := io.ReadFull(c.r, c.in); err != nil {
		return nil, err
	}
	if status != "200" {
		return nil, fmt.Errorf("status %s: %s", status, c.in)
	}
	return c.in, nil
}
