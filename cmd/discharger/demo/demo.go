// Package demo has the command demo, which plays the life of a session over HTTP: a
// homeserver, a client and a thief at a service with a temporary store. A step whose
// answer is not the expected one ends it with an error.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/serve"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/wire"
)

// Command returns the command "demo".
func Command() command.Command {
	return command.Command{
		Name: "demo", Short: "Play the life of a session, step by step. Needs nothing.",
		Example: "discharger demo",
		Long: "Starts the service on a free port and a temporary store, and plays a homeserver, a\n" +
			"client and a thief over real HTTP. Exit code 1 if anything goes other than it should.",
		Setup: command.NoFlags(demo),
	}
}

// clock is a clock that the demo turns forward instead of waiting.
type clock struct {
	real  func() time.Time
	ahead atomic.Int64
}

func (c *clock) now() time.Time          { return c.real().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// demo sets up the stage, and removes it afterwards.
func demo(ctx context.Context, t *command.Terminal, _ []string) (err error) {
	dir, err := os.MkdirTemp("", "discharger-demo-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	c := &clock{real: t.Now}
	cfg := config.Default()
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.DataDir = filepath.Join(dir, "data")
	d, home, err := serve.Stage(ctx, cfg, c.now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()

	h, err := setup.Homeserver(home, c.now)
	if err != nil {
		return err
	}
	web, err := serveDemoHomeserver(ctx, h)
	if err != nil {
		return err
	}
	defer web.Close()
	p := &play{out: t.Out, clock: c, service: home.Peer.Service, homeserver: web.url, ttl: cfg.Discharge.TTL}
	return p.run(ctx)
}

// demoHomeserver is the smallest homeserver there can be:
//
//	POST /login    user=…   answers with an access macaroon
//	GET  /whoami            answers with whose bundle is in Authorization
//
// It keeps no state, and makes no requests.
type demoHomeserver struct {
	*http.Server
	url string
}

func serveDemoHomeserver(ctx context.Context, h *homeserver.Homeserver) (*demoHomeserver, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		m, err := h.Mint(homeserver.MintParams{User: r.FormValue("user"), Device: "PHONE", Mode: caveat.ModeRotate})
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		text, err := m.Text()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, text)
	})
	mux.HandleFunc("GET /whoami", func(w http.ResponseWriter, r *http.Request) {
		bundle := strings.TrimPrefix(r.Header.Get(wire.HeaderAuthorization), wire.AuthorizationPrefix)
		id, err := h.Verify(r.Context(), bundle, homeserver.Request{})
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "%s, device %s, epoch %d", id.User, id.Device, id.Epoch)
	})
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	d := &demoHomeserver{Server: server.HTTPServer(mux, slog.New(slog.DiscardHandler)), url: "http://" + l.Addr().String()}
	go d.Serve(l)
	return d, nil
}

// maxBody bounds an answer, in bytes.
const maxBody = 128 << 10

// send sends one request to the homeserver and returns the body of the answer.
// Any status but 200 is an error with the body as its text.
func send(ctx context.Context, method, target, bundle string, form url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	if form != nil {
		req.Header.Set("Content-Type", wire.ContentTypeForm)
	}
	if bundle != "" {
		req.Header.Set(wire.HeaderAuthorization, wire.AuthorizationPrefix+bundle)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", &homeserverRefusal{status: resp.StatusCode, text: strings.TrimSpace(string(body))}
	}
	return string(body), nil
}

// homeserverRefusal is an answer of the demo's homeserver other than 200.
type homeserverRefusal struct {
	status int
	text   string
}

func (e *homeserverRefusal) Error() string { return fmt.Sprintf("%d: %s", e.status, e.text) }

// refusedAs reports whether an error is the homeserver's 401 with a text.
func refusedAs(err error, text string) bool {
	var refusal *homeserverRefusal
	return errors.As(err, &refusal) && refusal.status == http.StatusUnauthorized && strings.Contains(refusal.text, text)
}
