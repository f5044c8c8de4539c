package server_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// TestOwnSessions lists and ends sessions like an application's list of devices.
func TestOwnSessions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	phone := w.session("@alice:a.example", "PHONE", caveat.ModeRotate)
	laptop := w.session("@alice:a.example", "LAPTOP", caveat.ModeOpen)
	bob := w.session("@bob:a.example", "PHONE", caveat.ModeRotate)
	for range 2 {
		phone.alive(t, true)
		list, err := phone.OwnSessions(ctx)
		testkit.NoError(t, err)
		if len(list) != 2 {
			t.Fatalf("%+v", list)
		}
		for _, s := range list {
			if s.Current != (s.ID == phone.Minted.Session) || s.Policy != "" || s.Labels != nil || s.Epoch != 0 {
				t.Errorf("%+v", s)
			}
			// The list hides the use of the requesting session.
			if hidden := s.LastUsed.IsZero() && !s.LastIP.IsValid() && s.LastClient == ""; hidden != s.Current {
				t.Errorf("%+v", s)
			}
		}
	}
	testkit.NoError(t, phone.RevokeOwn(ctx, bob.Minted.Session))
	bob.alive(t, true)
	testkit.NoError(t, phone.RevokeOwn(ctx, laptop.Minted.Session))
	testkit.NoError(t, phone.RevokeOwn(ctx, laptop.Minted.Session))
	laptop.alive(t, false)
	phone.alive(t, true)
	testkit.NoError(t, phone.RevokeOwn(ctx, phone.Minted.Session))
	if _, err := phone.OwnSessions(ctx); !errors.Is(err, client.ErrRefused) {
		t.Errorf("after its end: %v", err)
	}
	phone.alive(t, false)
	if err := phone.RevokeOwn(ctx, bob.Minted.Session); !errors.Is(err, client.ErrRefused) {
		t.Errorf("after its end: %v", err)
	}
}

// TestOwnSessionsStatus goes through the classes of answers, which are those of
// a logout.
func TestOwnSessionsStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := b64(w.mint(caveat.ModeRotate))
	token := w.post(wire.PathDischarge, form("id64", id)).discharge(t).RefreshToken
	with := func(more ...string) url.Values {
		return form(append([]string{"id64", id, "token64", token, "token-kind", "refresh"}, more...)...)
	}
	open := b64(w.mint(caveat.ModeOpen))
	w.post(wire.PathDischarge, form("id64", open)).discharge(t)
	held := b64(w.mint(caveat.ModeHeld))
	w.post(wire.PathDischarge, form("id64", held), "Authorization", "Bearer "+apiKey).discharge(t)
	other := caveat.NewSessionID()
	for name, c := range map[string]struct {
		a    answer
		want int
	}{
		"list":             {w.post(wire.PathOwnSessions, with()), 200},
		"list by query":    {w.post(wire.PathOwnSessions+"?"+with().Encode(), nil), 200},
		"list with GET":    {w.do(w.request(http.MethodGet, wire.PathOwnSessions+"?id64="+id, "")), 405},
		"the caveat alone": {w.post(wire.PathOwnSessions, form("id64", id)), 401},
		"open":             {w.post(wire.PathOwnSessions, form("id64", open)), 401},
		"open, a token":    {w.post(wire.PathOwnSessions, form("id64", open, "token64", token, "token-kind", "refresh")), 401},
		"open with key":    {w.post(wire.PathOwnSessions, form("id64", open), "Authorization", "Bearer "+apiKey), 200},
		"revoke with open": {w.post(wire.PathRevokeOwn, form("id64", open, "session", other.String())), 401},
		"revoke, caveat":   {w.post(wire.PathRevokeOwn, form("id64", id, "session", other.String())), 401},
		"no caveat":        {w.post(wire.PathOwnSessions, nil), 400},
		"not a caveat":     {w.post(wire.PathOwnSessions, form("id", "x")), 400},
		"held":             {w.post(wire.PathOwnSessions, form("id64", held)), 401},
		"held with key":    {w.post(wire.PathOwnSessions, form("id64", held), "Authorization", "Bearer "+apiKey), 200},
		"held, wrong key":  {w.post(wire.PathOwnSessions, form("id64", held), "Authorization", "Bearer x"), 401},
		"revoke unknown":   {w.post(wire.PathRevokeOwn, with("session", other.String())), 200},
		"revoke missing":   {w.post(wire.PathRevokeOwn, with()), 400},
		"revoke nonsense":  {w.post(wire.PathRevokeOwn, with("session", "x")), 400},
		"revoke two":       {w.post(wire.PathRevokeOwn, with("session", other.String(), "session", other.String())), 400},
		"revoke with held": {w.post(wire.PathRevokeOwn, form("id64", held, "session", other.String())), 401},
	} {
		if c.a.status != c.want {
			t.Errorf("%s: %d %s, want %d", name, c.a.status, c.a.body, c.want)
		}
	}
	w.store.set(errors.New("down"), false)
	for _, path := range []string{wire.PathOwnSessions, wire.PathRevokeOwn} {
		if a := w.post(path, with("session", other.String())); a.status != 503 || a.header.Get("Retry-After") == "" {
			t.Errorf("%s without a store: %d %s", path, a.status, a.body)
		}
	}
}
