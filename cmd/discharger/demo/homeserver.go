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
	"strings"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/wire"
)

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
