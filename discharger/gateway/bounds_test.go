package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/clientaddr"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/outbox"
	"github.com/discharger/discharger/discharger/gateway/service"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// narrowedBy adds conditions of a size to a token, beyond the limits of Attenuate too.
func narrowedBy(t *testing.T, m *macaroon.Macaroon, name string, conditions, size int) string {
	t.Helper()
	m = m.Clone()
	for i := range conditions {
		c := fmt.Sprintf("%s !%s-%d:", token.CondRoom, name, i)
		testkit.NoError(t, m.AddFirstPartyCaveat([]byte(c+strings.Repeat("x", size-len(c)))))
	}
	return heldText(t, m)
}

func heldText(t *testing.T, m *macaroon.Macaroon) string {
	t.Helper()
	text, err := bundle.Encode(macaroon.Slice{m})
	testkit.NoError(t, err)
	return token.PrefixHeld + text
}

func accessMacaroon(t *testing.T, text string) *macaroon.Macaroon {
	t.Helper()
	b, err := token.ParseAccess(text)
	testkit.NoError(t, err)
	m, err := token.AccessOf(b)
	testkit.NoError(t, err)
	return m
}

// identified returns the status of a request with a token; 200 if it is forwarded.
func (w *world) identified(token string) int {
	r := httptest.NewRequest("GET", upstream.PathWhoami, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	x := &exchange{method: r.Method, client: clientaddr.Peer(r)}
	r = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	f := x.matchRoute(r)
	if f == nil {
		f = w.gateway.identify(r, x)
	}
	if f != nil {
		return f.Status
	}
	return http.StatusOK
}

func heapInUse() int {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// longestRoom is the length of the longest accepted condition.
const longestRoom = len(token.CondRoom) + 1 + 255

// Thousands of narrowed tokens do not exceed the memory of the caches, and other users
// are served as before, without another discharge.
func TestFloodOfNarrowedTokens(t *testing.T) {
	const room = 16 << 20
	w := newWorld(t, func(w *world) { w.cfg.CacheBytes, w.cfg.Log, w.stopped = room, nil, time.Now() })
	users := make([]string, 20)
	for i := range users {
		users[i] = w.login(false).text("access_token")
	}
	served := func(users []string) {
		for _, token := range users {
			w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
		}
	}
	served(users)
	served(users)
	for _, c := range []struct {
		name                                 string
		sessions, each, conditions, size, at int
	}{
		{"largest token", 1, 10_000, 21, 540, 401},
		{"condition too long", 1, 1_000, 1, token.MaxCondition + 1, 401},
		{"largest accepted, one session", 1, 3_000, token.MaxConditions, longestRoom, 200},
		{"largest accepted, many sessions", 300, 10, token.MaxConditions, longestRoom, 200},
		{"small, one session", 1, 2_000, 1, 60, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked, before := w.asked.Load(), heapInUse()
			for session := range c.sessions {
				m := accessMacaroon(t, w.login(false).text("access_token"))
				m = accessMacaroon(t, narrowedBy(t, m, "all", c.conditions-1, c.size))
				for i := range c.each {
					token := narrowedBy(t, m, fmt.Sprint(i), 1, c.size)
					if status := w.identified(token); status != c.at {
						t.Fatalf("token of %d bytes: %d, want %d", len(token), status, c.at)
					}
					if i%50 == 0 {
						served(users[(session+i/50)%len(users):][:1])
					}
				}
			}
			served(users)
			if grown := heapInUse() - before; grown > room*3/2 {
				t.Errorf("the heap grew by %d KiB, with %d KiB for caches", grown>>10, room>>10)
			}
			if n := int(w.asked.Load() - asked); n > c.sessions {
				t.Errorf("%d discharges were fetched for %d logins", n, c.sessions)
			}
			if n := w.gateway.caches.Bytes(); n > room {
				t.Errorf("caches take %d KiB of %d", n>>10, room>>10)
			}
		})
	}
}

// All narrowed tokens of a session work. The number of cached ones is bounded.
func TestManyTokensOfSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	whole := w.login(false).text("access_token")
	var all []string
	for i := range 3 * service.VariantsOfSession {
		token, err := token.Attenuate(whole, fmt.Sprintf("client-ip 127.0.0.0/%d", 8+i%8), fmt.Sprintf("client-ip 127.0.0.0/%d", 8+i/8))
		testkit.NoError(t, err)
		all = append(all, token)
	}
	for range 2 {
		for _, token := range append(all, whole) {
			w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
		}
	}
	if n := w.gateway.service.Discharges.Tokens.Len(); n > service.VariantsOfSession+1 {
		t.Errorf("%d tokens are kept", n)
	}
	if _, ok := w.gateway.service.Discharges.Tokens.Get(whole); !ok || w.asked.Load() != 1 {
		t.Errorf("whole token is kept: %v; %d discharges were fetched", ok, w.asked.Load())
	}
}

// A token has a bounded number of conditions.
func TestAttenuateIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text := w.login(false).text("access_token")
	for range token.MaxConditions {
		var err error
		text, err = token.Attenuate(text, "client-ip 127.0.0.0/8")
		testkit.NoError(t, err)
	}
	w.want(w.do("GET", upstream.PathWhoami, text, nil), 200, "")
	if got, err := token.Attenuate(text, token.CondReadOnly); err == nil || got != "" {
		t.Error("one more condition was added")
	}
	w.want(w.do("GET", upstream.PathWhoami, narrowedBy(t, accessMacaroon(t, text), "r", 1, 100), nil), 401, matrix.CodeUnknownToken)
}

// A session that logged out during an outage of the service stays logged out after any
// number of other ends: only this cache refuses it.
func TestUnsentEndsAreKept(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		token := w.login(false).text("access_token")
		w.want(w.do("GET", upstream.PathWhoami, token, nil), 200, "")
		w.down.Store(true)
		w.want(w.do("POST", "/_matrix/client/v3/logout", token, anyMap{}), 200, "")
		flood := func() {
			for range 100_000 {
				id := caveat.NewSessionID()
				w.gateway.outbox.Ends.Put(id, outbox.End{Soft: true})
			}
			if n := w.gateway.caches.Bytes(); n > w.cfg.CacheBytes {
				t.Fatalf("caches take %d bytes", n)
			}
		}
		for range 2 {
			flood()
			if a := w.want(w.do("GET", upstream.PathWhoami, token, nil), 401, matrix.CodeUnknownToken); a.soft() {
				t.Error("logout ended softly")
			}
			w.restart()
		}
		w.down.Store(false)
		w.gateway.outbox.Wake()
		testkit.Eventually(t, "all ends are delivered", func() bool { return w.sessions() == 0 })
		flood()
		if a := w.want(w.do("GET", upstream.PathWhoami, token, nil), 401, matrix.CodeUnknownToken); a.soft() {
			t.Error("logout ended softly")
		}
	}, func(w *world) { w.cfg.CacheBytes = 1 << 20 })
}

// Eviction from caches does not change responses.
func TestEvictionChangesNoResponse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.CacheBytes = 1 }) // every entry is evicted
	held, rotate := w.login(false).text("access_token"), w.login(true)
	narrow, err := token.Attenuate(held, token.CondReadOnly)
	testkit.NoError(t, err)
	for range 3 {
		w.want(w.do("GET", upstream.PathWhoami, held, nil), 200, "")
		w.want(w.do("GET", upstream.PathWhoami, narrow, nil), 200, "")
		w.want(w.do("POST", "/_matrix/client/v3/createRoom", narrow, anyMap{}), 403, matrix.CodeForbidden)
		w.want(w.do("GET", upstream.PathWhoami, rotate.text("access_token"), nil), 200, "")
		rotate = w.want(w.refresh(rotate.text("refresh_token")), 200, "")
	}
	w.want(w.do("POST", "/_matrix/client/v3/logout", held, anyMap{}), 200, "")
	w.want(w.do("POST", "/_matrix/client/v3/logout", rotate.text("access_token"), anyMap{}), 200, "")
	for range 2 {
		for _, token := range []string{held, narrow, rotate.text("access_token")} {
			if a := w.want(w.do("GET", upstream.PathWhoami, token, nil), 401, matrix.CodeUnknownToken); a.soft() {
				t.Errorf("logout ended softly: %s", a.raw)
			}
		}
		if a := w.want(w.refresh(rotate.text("refresh_token")), 401, matrix.CodeUnknownToken); a.soft() {
			t.Errorf("logout ended softly: %s", a.raw)
		}
	}
}
