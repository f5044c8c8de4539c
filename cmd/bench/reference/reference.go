// Package reference has the servers that the discharger is compared with: the
// smallest that do a part of its work, with unmodified libraries.
//
//	nethttp   net/http, with a constant answer
//	echo      an echo handler, with a constant answer
//	bakery    the bakery library's own discharger, which keeps no sessions
//	bbolt     net/http, which writes a record to a bbolt file before it answers
//
//	reverseproxy  httputil.ReverseProxy, with enough idle connections
//	fosite        the refresh_token grant of the library fosite on its in-memory store
//	homeserver    behind the gateway, not compared: nethttp that accepts every login
//
// Each runs in a process of its own. It reads a [Spec] as JSON from standard input,
// writes a [Hello] as JSON to standard output, and ends when standard input does.
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

// Kind names a reference.
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

// Spec configures a reference.
type Spec struct {
	Kind Kind   `json:"kind"`
	Body []byte `json:"body"` // the constant answer
	Dir  string `json:"dir"`  // directory of the file of bbolt

	Upstream string `json:"upstream"` // URL behind reverseproxy
}

// Hello is the first line of a reference, once it listens.
type Hello struct {
	Addr      string `json:"addr"`       // host:port
	PublicKey string `json:"public_key"` // of a bakery, base64
}

// PathMemory is the path of [Memory].
const PathMemory = "/reference/memory"

// Memory is the memory allocated by the process since it started.
type Memory struct {
	Mallocs uint64 `json:"mallocs"`
	Bytes   uint64 `json:"bytes"`
}

// Run serves one reference until in ends.
func Run(ctx context.Context, in io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(in)
	var spec Spec
	if err := decoder.Decode(&spec); err != nil {
		return fmt.Errorf("read spec: %w", err)
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
		_, _ = io.Copy(io.Discard, in) // any error ends it
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
			_, _ = w.Write(s.Body) // a failed write shows as a failed request
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
	return nil, Hello{}, fmt.Errorf("reference %q is unknown", s.Kind)
}

// newBakery returns a discharger that discharges every caveat.
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

// withMemory serves PathMemory, at the cost of a comparison.
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
