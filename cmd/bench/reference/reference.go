// Package reference is what the service is compared with: the smallest servers
// that do a part of its work, on libraries that are used as they come.
//
//	nethttp   net/http, which reads a request and answers with the same bytes always
//	echo      an echo handler that does so
//	bakery    the bakery library's own discharger, which knows no sessions
//	bbolt     net/http, which puts a record into a bbolt file before it answers
//
//	reverseproxy  httputil.ReverseProxy, with connections enough to what is behind it
//	fosite        the refresh_token grant of the library fosite on its in-memory store
//	homeserver    behind the gateway, not compared: nethttp that accepts every login
//
// They run in a process of their own. What one is to do comes as JSON on its
// standard input, where it listens it says as JSON on its standard output, and
// it ends when its standard input does.
package reference

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"
	"github.com/labstack/echo/v4"
)

// Kind says which server it is.
type Kind string

// The kinds.
const (
	NetHTTP Kind = "nethttp"
	Echo    Kind = "echo"
	Bakery  Kind = "bakery"
	Bbolt   Kind = "bbolt"

	ReverseProxy Kind = "reverseproxy"
	Fosite       Kind = "fosite"
	Homeserver   Kind = "homeserver"
)

// Spec is what a reference is told.
type Spec struct {
	Kind Kind   `json:"kind"`
	Body []byte `json:"body"` // what all but bakery answer with
	Dir  string `json:"dir"`  // where bbolt has its file

	Upstream string `json:"upstream"` // URL of what is behind reverseproxy
}

// Hello is what a reference says when it is ready.
type Hello struct {
	Addr      string `json:"addr"`       // where it listens
	PublicKey string `json:"public_key"` // of a bakery, base64
}

// PathMemory is answered with a [Memory].
const PathMemory = "/reference/memory"

// Memory is what the process has allocated since it started.
type Memory struct {
	Mallocs uint64 `json:"mallocs"`
	Bytes   uint64 `json:"bytes"`
}

// Run is a reference from beginning to end.
func Run(ctx context.Context, in io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(in)
	var spec Spec
	if err := decoder.Decode(&spec); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	handler, hello, err := newHandler(spec)
	if err != nil {
		return fmt.Errorf("reference %s: %w", spec.Kind, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := &http.Server{Handler: withMemory(handler), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	hello.Addr = l.Addr().String()
	if err := json.NewEncoder(out).Encode(hello); err != nil {
		return errors.Join(err, srv.Close())
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in) // however it ends, it has ended
		close(ended)
	}()
	select {
	case err := <-failed:
		return err
	case <-ended:
	case <-ctx.Done():
	}
	return srv.Close()
}

func newHandler(s Spec) (http.Handler, Hello, error) {
	switch s.Kind {
	case NetHTTP:
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(s.Body) // whoever does not read it measures nothing
		}), Hello{}, nil
	case Echo:
		e := echo.New()
		e.POST("/*", func(c echo.Context) error {
			_, _ = io.Copy(io.Discard, c.Request().Body)
			return c.JSONBlob(http.StatusOK, s.Body)
		})
		return e, Hello{}, nil
	case Bakery:
		return newBakery()
	case ReverseProxy:
		h, err := newReverseProxy(s)
		return h, Hello{}, err
	case Homeserver:
		return newHomeserver(s), Hello{}, nil
	case Fosite:
		return newFosite(), Hello{}, nil
	case Bbolt:
		h, err := newBbolt(s)
		return h, Hello{}, err
	}
	return nil, Hello{}, fmt.Errorf("there is no reference %q", s.Kind)
}

// newBakery is a discharger that discharges whatever is addressed to it.
func newBakery() (http.Handler, Hello, error) {
	key, err := bakery.GenerateKey()
	if err != nil {
		return nil, Hello{}, err
	}
	allow := func(context.Context, *http.Request, *bakery.ThirdPartyCaveatInfo, *httpbakery.DischargeToken) ([]checkers.Caveat, error) {
		return nil, nil
	}
	d := httpbakery.NewDischarger(httpbakery.DischargerParams{Key: key, Checker: httpbakery.ThirdPartyCaveatCheckerFunc(allow)})
	mux := http.NewServeMux()
	d.AddMuxHandlers(mux, "/")
	return mux, Hello{PublicKey: base64.StdEncoding.EncodeToString(key.Public.Key[:])}, nil
}

// withMemory answers one path more, at the cost of a comparison.
func withMemory(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == PathMemory {
			memory(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func memory(w http.ResponseWriter) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var b strings.Builder
	_ = json.NewEncoder(&b).Encode(Memory{Mallocs: m.Mallocs, Bytes: m.TotalAlloc}) // numbers always encode
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, b.String())
}
