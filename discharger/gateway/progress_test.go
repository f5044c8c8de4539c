package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/testkit"
)

// serveBubble serves requests in a bubble of testing/synctest, with the gateway's
// deadlines.
func serveBubble(t *testing.T, handle func(*admission.Recorder, *http.Request)) (dial func() net.Conn) {
	p := testkit.NewPipes()
	l := p.Listen()
	s := &http.Server{IdleTimeout: time.Hour, ErrorLog: nil, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := admission.NewRecorder(w, r)
		handle(out, r)
		out.End()
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return func() net.Conn {
		conn, err := p.Dial(t.Context(), "tcp", l.Addr().String())
		testkit.NoError(t, err)
		return conn
	}
}

// A body has to make progress, and has no deadline otherwise.
func TestBodiesMakeProgress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		pieces int
		size   int
		pause  time.Duration
		hurry  time.Duration
		want   error // nil: the whole body arrives
		until  time.Duration
	}{
		{name: "at once", pieces: 100, size: 100},
		{name: "nothing", pieces: 1, size: 100, pause: time.Hour, want: admission.ErrSlow, until: admission.ReadTimeout},
		{name: "too slowly, forever", pieces: 100_000, size: 1, pause: 10 * time.Second, want: admission.ErrSlow, until: admission.ReadTimeout},
		{name: "slowly, for hours", pieces: 1000, size: 2 * admission.MinProgress, pause: 20 * time.Second},
		{name: "slowly in small pieces", pieces: 10_000, size: 100, pause: time.Second},
		{name: "small body in a few pieces", pieces: 5, size: 10, pause: 5 * time.Second},
		{name: "stalled", pieces: 2, size: 100 << 10, pause: 5 * time.Minute, want: admission.ErrSlow},
		{name: "too slowly for a parsed body", pieces: 1000, size: 2 * admission.MinProgress, pause: 5 * time.Second, hurry: bodyTimeout, want: admission.ErrSlow},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				result := make(chan error, 1)
				start := time.Now()
				var took time.Duration
				dial := serveBubble(t, func(w *admission.Recorder, r *http.Request) {
					if c.hurry > 0 {
						admission.LimitBody(r, c.hurry)
					}
					n, err := io.Copy(io.Discard, r.Body)
					if err == nil && n != int64(c.pieces*c.size) {
						err = io.ErrUnexpectedEOF
					}
					took = time.Since(start)
					result <- err
				})
				conn := dial()
				var client sync.WaitGroup
				defer client.Wait()
				defer conn.Close()
				client.Go(func() {
					if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
						return
					}
					out := &chunks{conn}
					for i := range c.pieces {
						if i > 0 || c.pieces == 1 {
							time.Sleep(c.pause)
						}
						if _, err := out.Write(bytes.Repeat([]byte{'x'}, c.size)); err != nil {
							return
						}
					}
					_, _ = io.WriteString(conn, "0\r\n\r\n")
				})
				client.Go(func() { _, _ = io.Copy(io.Discard, conn) })
				if err := <-result; !errors.Is(err, c.want) {
					t.Errorf("after %v: %v, want %v", took, err, c.want)
				}
				if c.until > 0 && took != c.until {
					t.Errorf("took %v, want %v", took, c.until)
				}
			})
		})
	}
}

// chunks writes pieces of a chunked body.
type chunks struct{ io.Writer }

func (c *chunks) Write(p []byte) (int, error) {
	const hex = "0123456789abcdef"
	var size []byte
	for n := len(p); n > 0; n /= 16 {
		size = append([]byte{hex[n%16]}, size...)
	}
	if _, err := c.Writer.Write(append(append(append(size, "\r\n"...), p...), "\r\n"...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A client that does not read is disconnected; a slow reader gets the whole response,
// and a long poll has no deadline.
func TestAnswersMakeProgress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		pieces int
		size   int
		quiet  time.Duration // before each piece
		read   time.Duration // pause of the client before it reads 32 KiB
		cut    bool
	}{
		{name: "at once", pieces: 10, size: 32 << 10},
		{name: "never", pieces: 10, size: 32 << 10, read: 24 * time.Hour, cut: true},
		{name: "slowly, for hours", pieces: 300, size: 32 << 10, read: admission.WriteTimeout/2 - time.Second},
		{name: "a long poll", pieces: 1, size: 100, quiet: time.Hour},
		{name: "events every ten minutes", pieces: 10, size: 100, quiet: 10 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				result := make(chan error, 1)
				dial := serveBubble(t, func(w *admission.Recorder, r *http.Request) {
					w.Header().Set("Content-Type", "application/octet-stream")
					for range c.pieces {
						time.Sleep(c.quiet)
						_, err := w.Write(make([]byte, c.size))
						if err == nil {
							err = http.NewResponseController(w).Flush()
						}
						if err != nil {
							result <- err
							return
						}
					}
					result <- nil
				})
				conn := dial()
				defer conn.Close()
				_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				testkit.NoError(t, err)
				if !c.cut {
					resp, err := http.ReadResponse(bufio.NewReaderSize(conn, 64<<10), nil)
					testkit.NoError(t, err)
					n := 0
					for piece := make([]byte, 32<<10); ; {
						time.Sleep(c.read)
						m, err := io.ReadFull(resp.Body, piece)
						if n += m; err != nil {
							break
						}
					}
					if n != c.pieces*c.size {
						t.Errorf("%d bytes arrived, want %d", n, c.pieces*c.size)
					}
				}
				if err := <-result; errors.Is(err, os.ErrDeadlineExceeded) != c.cut || err != nil && !c.cut {
					t.Error(err)
				}
			})
		})
	}
}

// The deadlines of one request do not apply to the next on its connection.
func TestDeadlinesEndWithRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := serveBubble(t, func(w *admission.Recorder, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			time.Sleep(10 * time.Minute) // a long poll, after its body
			if err == nil {
				err = r.Context().Err()
			}
			if err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusOK)
		})
		conn := dial()
		defer conn.Close()
		in := bufio.NewReader(conn)
		for range 3 {
			_, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
			testkit.NoError(t, err)
			resp, err := http.ReadResponse(in, nil)
			testkit.NoError(t, err)
			if resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			time.Sleep(10 * time.Minute)
		}
	})
}

// stalled is a body of which only the beginning arrives.
type stalled struct{ io.Reader }

func (s stalled) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

func (s stalled) Close() error { return nil }

// A stalled body is 408, whether the gateway parses or forwards it.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
	for _, path := range []string{pathLogin, pathRefresh, "/_matrix/client/v3/account/password", "/_matrix/media/v3/upload"} {
		t.Run(path, func(t *testing.T) {
			r := httptest.NewRequest("POST", path, stalled{strings.NewReader(`{"a":`)})
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			r.ContentLength = 100
			out := httptest.NewRecorder()
			w.gateway.ServeHTTP(out, r)
			if out.Code != http.StatusRequestTimeout || out.Header().Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%d %s", out.Code, out.Body)
			}
			if text := strings.HasPrefix(out.Header().Get("Content-Type"), "text/plain"); text != (path == pathRefresh) {
				t.Errorf("%v %s", out.Header(), out.Body)
			}
		})
	}
}
