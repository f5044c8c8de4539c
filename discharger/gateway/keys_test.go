package gateway

import (
	"encoding/hex"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// beside starts another gateway before the same homeserver.
func (w *world) beside(change func(*Config)) *world {
	w.t.Helper()
	other := &world{t: w.t, hs: w.hs, service: w.service, log: &testkit.Buffer{}, cfg: w.cfg}
	other.cfg.Registerer, other.cfg.Outbox = nil, filepath.Join(w.t.TempDir(), "gateway.db")
	change(&other.cfg)
	g, err := New(other.cfg)
	testkit.NoError(w.t, err)
	other.gateway, other.http = g, httptest.NewServer(g)
	w.t.Cleanup(func() {
		other.http.Close()
		_ = g.Close()
	})
	return other
}

// wantUndecided fails unless every token of a client gets 503.
func (w *world) wantUndecided(tokens map[string]string) {
	w.t.Helper()
	for name, text := range tokens {
		if token.KindOf(text) == token.Refresh {
			a := w.refresh(text)
			if a.status != 503 || a.header.Get("Content-Type") == "application/json" || a.header.Get("Retry-After") == "" {
				w.t.Errorf("%s: %d %s %s", name, a.status, a.header, a.raw)
			}
			continue
		}
		for _, path := range []string{upstream.PathWhoami, "/_matrix/client/v3/sync"} {
			if a := w.do("GET", path, text, nil); a.status != 503 || a.header.Get("Retry-After") == "" {
				w.t.Errorf("%s, %s: %d %s", name, path, a.status, a.raw)
			}
		}
		for _, path := range []string{"/_matrix/client/v3/logout", "/_matrix/client/v3/logout/all"} {
			if a := w.do("POST", path, text, anyMap{}); a.status != 503 {
				w.t.Errorf("%s, %s: %d %s", name, path, a.status, a.raw)
			}
		}
	}
}

// wantOver fails unless every token of a client gets a soft end.
func (w *world) wantOver(tokens map[string]string) {
	w.t.Helper()
	for name, text := range tokens {
		a := answer{}
		if token.KindOf(text) == token.Refresh {
			a = w.refresh(text)
		} else {
			a = w.do("GET", upstream.PathWhoami, text, nil)
		}
		if a.status != 401 || a.text("errcode") != matrix.CodeUnknownToken || !a.soft() {
			w.t.Errorf("%s: %d %s", name, a.status, a.raw)
		}
	}
}

// A gateway without a new master key that another has loaded decides nothing about its
// tokens until it has loaded the key too.
func TestKeyAtOneOfTwoGateways(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.cfg.Keys[0]
	other := w.beside(func(*Config) {})
	fresh := newMaster(t)
	w.reload(func(c *Config) { c.Keys = homeserver.Keys{fresh, old} })
	held, rotate := w.login(false), w.login(true)
	tokens := map[string]string{
		"held": held.text("access_token"), "rotate": rotate.text("access_token"), "refresh": rotate.text("refresh_token"),
	}
	before := w.hs.count()
	other.wantUndecided(tokens)
	if w.hs.count() != before {
		t.Error("request reached the homeserver")
	}
	id := fresh.ID()
	if log := w.log.String(); !strings.Contains(log, "unknown key, request answered 503") || !strings.Contains(log, "key "+hex.EncodeToString(id[:])) {
		t.Errorf("log without the key's id: %s", log)
	}
	other.reload(func(c *Config) { c.Keys = homeserver.Keys{old, fresh} }) // the key is staged
	other.want(other.do("GET", upstream.PathWhoami, tokens["held"], nil), 200, "")
	other.want(other.do("GET", upstream.PathWhoami, tokens["rotate"], nil), 200, "")
	other.want(other.refresh(tokens["refresh"]), 200, "")
}

// Tokens of a retired master key have ended softly, and their devices stay at the
// homeserver; newer sessions live, also after a restart.
func TestRetiredKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old, fresh := w.cfg.Keys[0], newMaster(t)
	held, rotate := w.login(false), w.login(true)
	tokens := map[string]string{
		"held": held.text("access_token"), "rotate": rotate.text("access_token"), "refresh": rotate.text("refresh_token"),
	}
	w.reload(func(c *Config) { c.Keys = homeserver.Keys{fresh, old} })
	w.want(w.do("GET", upstream.PathWhoami, tokens["held"], nil), 200, "")
	since := w.login(false, anyMap{"device_id": "NEW"}).text("access_token")
	w.reload(func(c *Config) { c.Keys, c.Retired = homeserver.Keys{fresh}, [][4]byte{old.ID()} })
	for range 2 {
		w.wantOver(tokens)
		w.want(w.do("GET", upstream.PathWhoami, since, nil), 200, "")
		for _, device := range []string{"DEV1", "DEV2", "NEW"} {
			if !w.hs.alive(device) {
				t.Errorf("device %s was logged out", device)
			}
		}
		w.restart()
	}
}

// A request is undecided if the sealed homeserver's token is of an unknown key, and
// refused if it is of a retired one.
func TestKeyOfUpstreamToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mint, seal := w.cfg.Keys[0], newMaster(t)
	elsewhere, err := token.NewSealer(homeserver.Keys{seal}, nil)
	testkit.NoError(t, err)
	w.gateway.sealer.Replace(elsewhere)
	held, rotate := w.login(false), w.login(true)
	own, err := token.NewSealer(homeserver.Keys{mint}, nil)
	testkit.NoError(t, err)
	w.gateway.sealer.Replace(own)
	w.wantUndecided(map[string]string{
		"held": held.text("access_token"), "rotate": rotate.text("access_token"), "refresh": rotate.text("refresh_token"),
	})
	w.reload(func(c *Config) { c.Retired = [][4]byte{seal.ID()} })
	w.wantOver(map[string]string{
		"held": held.text("access_token"), "rotate": rotate.text("access_token"), "refresh": rotate.text("refresh_token"),
	})
}

// Malformed tokens are refused for any bytes in the place of a key id.
func TestMalformedTokenHasNoKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rotate := w.login(true)
	for name, text := range map[string]string{
		"prefix":        token.PrefixHeld,
		"letters":       token.PrefixHeld + strings.Repeat("A", 600),
		"rotate":        token.PrefixRotate + strings.Repeat("B", 600),
		"refresh":       token.PrefixRefresh,
		"short refresh": token.PrefixRefresh + strings.Repeat("A", 200),
		"cut refresh":   rotate.text("refresh_token")[:200],
		"padded":        token.PrefixRefresh + strings.Repeat("A", 600) + "=",
	} {
		t.Run(name, func(t *testing.T) {
			if token.KindOf(text) == token.Refresh {
				w.want(w.refresh(text), 401, matrix.CodeUnknownToken)
			} else {
				w.want(w.do("GET", upstream.PathWhoami, text, nil), 401, matrix.CodeUnknownToken)
			}
		})
	}
}

// Tokens with an unknown key id are counted.
func TestUnknownKeysAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text := w.login(true).text("refresh_token")
	box, err := wire.DecodeBase64(text[token.PrefixSize:])
	testkit.NoError(t, err)
	const tries = 3
	for range tries {
		box[0]++
		if a := w.refresh(token.PrefixRefresh + wire.EncodeBase64(box)); a.status != 503 {
			t.Errorf("key id %s: %d %s", hex.EncodeToString(box[:token.KeyIDSize]), a.status, a.raw)
		}
	}
	families, err := w.reg.Gather()
	testkit.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "discharger_gateway_unknown_keys_total" {
			if got := f.GetMetric()[0].GetCounter().GetValue(); got != tries {
				t.Errorf("count is %v, want %d", got, tries)
			}
			return
		}
	}
	t.Error("metric is missing")
}
