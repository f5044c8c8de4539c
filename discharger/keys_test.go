package discharger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/testkit"
)

// sealedBy returns the caveat of a new session, sealed with these keys.
func sealedBy(t *testing.T, w *world, homeserver caveat.KeyPair, service caveat.PublicKey) []byte {
	t.Helper()
	c := w.login(caveat.ModeOpen).cond
	text, err := c.Encode()
	testkit.NoError(t, err)
	b, err := caveat.Seal(caveat.SealParams{
		Version: caveat.V2, Homeserver: homeserver, Discharger: service, RootKey: []byte(rootKey), Condition: text,
	})
	testkit.NoError(t, err)
	return b
}

// noStore is the store of requests that need none.
type noStore struct{ store.Store }

// TestUnknownKeysAreUndecided tests that a request with an unknown key is undecided,
// since another process may have the key already. Each one is observed, and logged at
// most once a second.
func TestUnknownKeysAreUndecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fresh, err := discharger.NewRefreshKey(nil)
	testkit.NoError(t, err)
	rotating := w.login(caveat.ModeRotate)
	unsigned := swapKeyID(rotating.must().RefreshToken, fresh)
	for kind, req := range map[discharger.KeyKind]*discharger.Request{
		discharger.KeyDischarger: {CaveatID: sealedBy(t, w, w.hs["a.example"], caveat.GenerateKey().Public)},
		discharger.KeyHomeserver: {CaveatID: sealedBy(t, w, caveat.GenerateKey(), w.keys.Public)},
		discharger.KeyRefresh:    {CaveatID: rotating.caveat, RefreshToken: unsigned},
	} {
		t.Run(string(kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { unknownKey(t, w, kind, req) })
		})
	}
}

func unknownKey(t *testing.T, w *world, kind discharger.KeyKind, req *discharger.Request) {
	var log bytes.Buffer
	seen := 0
	service, err := discharger.New(discharger.Config{
		Opener: w.opener, Store: noStore{}, RefreshKeys: []discharger.RefreshKey{{Key: secret.Key{1}}},
		Log: slog.New(slog.NewTextHandler(&log, nil)),
		Observer: observer(func(o discharger.Observation) {
			if o.UnknownKey == kind && o.Result == discharger.ResultUnavailable {
				seen++
			}
		}),
	}.WithClock(w.clock))
	testkit.NoError(t, err)
	for second := range 2 {
		for range 100 {
			g, err := service.Discharge(context.Background(), req)
			if g != nil || !errors.Is(err, discharger.ErrUnknownKey) || !errors.Is(err, discharger.ErrUnavailable) || errors.Is(err, discharger.ErrBadRequest) {
				t.Fatalf("%v, %v", g, err)
			}
		}
		if n := strings.Count(log.String(), "unknown key, request answered 503"); n != second+1 || strings.Count(log.String(), "\n") != n {
			t.Errorf("after %d s there are %d lines: %.300s", second, n, log.String())
		}
		time.Sleep(time.Second)
	}
	if seen != 200 {
		t.Errorf("%d of 200 were observed", seen)
	}
}

// TestRetiredKeysEndSessions tests that a session whose caveat or token was made with a
// retired key is over, softly, unless it has a tombstone.
func TestRetiredKeysEndSessions(t *testing.T) {
	t.Parallel()
	var cfg discharger.Config
	w := newWorld(t, func(c *discharger.Config) { cfg = *c })
	old := caveat.GenerateKey()
	toRetired := sealedBy(t, w, w.hs["a.example"], old.Public)
	alive, ended := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen)
	alive.must()
	ended.must()
	rotating := w.login(caveat.ModeRotate)
	refresh := rotating.must().RefreshToken
	testkit.NoError(t, ended.logout(discharger.ScopeSession))
	var err error
	cfg.Opener, err = caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{w.keys}, Retired: [][4]byte{[4]byte(old.Public[:4])},
		Homeservers: []caveat.Homeserver{{Name: "a.example", Key: w.hs["a.example"].Public, Retired: true}},
	})
	testkit.NoError(t, err)
	w.service, err = discharger.New(cfg)
	testkit.NoError(t, err)
	alive.unchanged(func() { alive.over(session.ReasonSessionEnded, true) })
	ended.unchanged(func() { ended.over(session.ReasonSessionEnded, false) })
	rotating.unchanged(func() { rotating.over(session.ReasonSessionEnded, true, token(refresh)) })
	g, err := w.service.Discharge(context.Background(), &discharger.Request{CaveatID: toRetired})
	var refused *discharger.Refusal
	if g != nil || !errors.As(err, &refused) || !refused.Ended || !refused.SoftLogout || refused.Reason != session.ReasonSessionEnded {
		t.Errorf("to a retired key: %v, %v", g, err)
	}
}

func TestServicePrintsNoKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if text := fmt.Sprintf(verb, w.service); text != "discharger service" {
			t.Errorf("%s prints %q", verb, text)
		}
	}
}
