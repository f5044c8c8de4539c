package server_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/server"
)

const strangersKey = "canary-api-key-of-b.example"

func withStranger(c *server.Config) {
	c.APIKeys["b.example"] = [][sha256.Size]byte{sha256.Sum256([]byte(strangersKey))}
}

func (w *world) api(key string) *api.Client {
	w.t.Helper()
	c, err := api.New(api.Config{URL: w.http.URL, APIKey: caveat.Secret(key), Timeout: patience, Patience: -1})
	must(w.t, err)
	return c
}

// session is a client with a session of its own.
type session struct {
	homeserver.Minted
	*api.Session
}

func (w *world) session(user, device string, mode caveat.Mode) session {
	w.t.Helper()
	m, err := w.hs.Mint(homeserver.MintParams{User: user, Device: device, Mode: mode})
	must(w.t, err)
	s, err := w.api("").NewSession(api.SessionConfig{Access: api.Access{Macaroon: m.Macaroon}})
	must(w.t, err)
	must(w.t, s.Refresh(context.Background()))
	return session{m, s}
}

func (s session) alive(t *testing.T, want bool) {
	t.Helper()
	err := s.Refresh(context.Background())
	if want && err != nil || !want && !errors.Is(err, api.ErrRefused) {
		t.Errorf("alive %v, but refresh says %v", want, err)
	}
}

func TestHomeserverOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	ctx := context.Background()
	ours, stranger := w.api(apiKey), w.api(strangersKey)
	const user = "@al/ice 100%:a.example" // all of it has to be escaped
	phone, phone2 := w.session(user, "PHO/NE", caveat.ModeRotate), w.session(user, "PHO/NE", caveat.ModeOpen)
	laptop, desk, bob := w.session(user, "LAPTOP", caveat.ModeOpen), w.session(user, "DESK", caveat.ModeOpen), w.session("@bob:a.example", "B", caveat.ModeOpen)

	list, err := ours.Sessions(ctx, user)
	must(t, err)
	if len(list) != 4 {
		t.Fatalf("listed %+v", list)
	}
	for _, s := range list {
		if s.LastIP != netip.MustParseAddr("127.0.0.1") || s.FirstClient == "" || time.Since(s.Created) > time.Minute {
			t.Errorf("listed %+v", s)
		}
	}
	if list, err := stranger.Sessions(ctx, user); err != nil || len(list) != 0 {
		t.Errorf("another homeserver sees %+v, %v", list, err)
	}
	must(t, stranger.RevokeSession(ctx, user, laptop.Minted.Session))
	must(t, stranger.RevokeUser(ctx, user, caveat.SessionID{}))
	must(t, stranger.RevokeAll(ctx))
	laptop.alive(t, true)

	for range 2 { // repeating is no error
		must(t, ours.RevokeSession(ctx, user, laptop.Minted.Session))
		laptop.alive(t, false)
	}
	must(t, ours.RevokeDevice(ctx, user, "PHO/NE", phone.Minted.Session))
	phone2.alive(t, false)
	phone.alive(t, true)
	must(t, ours.RevokeUser(ctx, user, phone.Minted.Session))
	desk.alive(t, false)
	phone.alive(t, true)
	bob.alive(t, true)
	must(t, ours.RevokeUser(ctx, user, caveat.SessionID{}))
	phone.alive(t, false)
	bob.alive(t, true)
	must(t, ours.RevokeAll(ctx))
	bob.alive(t, false)
}

func TestSeenOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	ctx := context.Background()
	s := w.session("@alice:a.example", "PHONE", caveat.ModeRotate)
	report := []api.Seen{
		{User: "@nobody:a.example", Session: caveat.SessionID{1}, Epoch: 1},
		{User: "@alice:a.example", Session: s.Minted.Session, Epoch: 1},
	}
	again := func() error { // what a thief of the access macaroon would do
		_, err := w.api("").Discharge(ctx, api.Request{Access: api.Access{Macaroon: s.Macaroon}})
		return err
	}
	must(t, w.api(strangersKey).Seen(ctx, report))
	must(t, again())
	must(t, w.api(apiKey).Seen(ctx, report))
	if err := again(); !errors.Is(err, api.ErrRefused) {
		t.Errorf("got %v", err)
	}
	for range 2 {
		s.alive(t, true)
	}
}

func TestHomeserverPathsNeedAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, r := range []struct{ method, path string }{
		{http.MethodGet, "/v1/users/a/sessions"}, {http.MethodDelete, "/v1/users/a/sessions"},
		{http.MethodDelete, "/v1/users/a/sessions/AAAAAAAAAAAAAAAAAAAAAQ"}, {http.MethodDelete, "/v1/users/a/devices/x"},
		{http.MethodDelete, "/v1/sessions"}, {http.MethodPost, "/v1/seen"},
	} {
		for _, header := range [][]string{nil, {"Authorization", "Bearer wrong"}} {
			a := w.do(w.request(r.method, r.path, "", header...))
			if e := a.error(t); a.status != http.StatusUnauthorized || e.Code != api.CodeUnauthorized {
				t.Errorf("%s %s: %d %s", r.method, r.path, a.status, a.body)
			}
		}
	}
}

func TestBadHomeserverOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.session("@alice:a.example", "PHONE", caveat.ModeOpen)
	for name, r := range map[string]*http.Request{
		"session":        w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions/nonsense", ""),
		"except":         w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions?except=x", ""),
		"except twice":   w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions?except="+s.Minted.Session.String()+"&except="+s.Minted.Session.String(), ""),
		"long user":      w.request(http.MethodDelete, "/v1/users/"+strings.Repeat("a", 256)+"/sessions", ""),
		"user no UTF-8":  w.request(http.MethodDelete, "/v1/users/%ff/sessions", ""),
		"no device":      w.request(http.MethodDelete, "/v1/users/a/devices/%ff", ""),
		"zero session":   w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions/AAAAAAAAAAAAAAAAAAAAAA", ""),
		"no JSON":        w.request(http.MethodPost, "/v1/seen", "seen=1"),
		"unknown key":    w.request(http.MethodPost, "/v1/seen", `{"seen":[],"more":1}`),
		"duplicate key":  w.request(http.MethodPost, "/v1/seen", `{"seen":[],"seen":[]}`),
		"trailing":       w.request(http.MethodPost, "/v1/seen", `{"seen":[]} {}`),
		"no session":     w.request(http.MethodPost, "/v1/seen", `{"seen":[{"user":"a","epoch":1}]}`),
		"negative epoch": w.request(http.MethodPost, "/v1/seen", `{"seen":[{"user":"a","session":"AAAAAAAAAAAAAAAAAAAAAQ","epoch":-1}]}`),
		"too many":       w.request(http.MethodPost, "/v1/seen", `{"seen":[`+strings.Repeat(`{"user":"a","session":"AAAAAAAAAAAAAAAAAAAAAQ","epoch":1},`, 1000)+`{"user":"a","session":"AAAAAAAAAAAAAAAAAAAAAQ","epoch":1}]}`),
	} {
		r.Header.Set("Authorization", "Bearer "+apiKey)
		if a := w.do(r); a.status != http.StatusBadRequest || a.error(t).Code != api.CodeBadRequest {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := w.early("/v1/seen", `{"seen":["`+strings.Repeat("x", 1<<20)+`"]}`, "Authorization", "Bearer "+apiKey)
	if a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("huge: %d", a.status)
	}
	s.alive(t, true)
}
