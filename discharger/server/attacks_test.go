package server_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// TestAttackEnumeration: for the holder of a caveat alone, the answer does not depend
// on the state of the session.
func TestAttackEnumeration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	same := func(what string, a, b answer) {
		t.Helper()
		names := func(h http.Header) []string { return slices.Sorted(maps.Keys(h)) }
		if a.status != b.status || !bytes.Equal(a.body, b.body) || !slices.Equal(names(a.header), names(b.header)) {
			t.Errorf("%s: %d %v %s and %d %v %s", what, a.status, a.header, a.body, b.status, b.header, b.body)
		}
	}
	ask := func(id []byte, more ...string) answer {
		return w.post(wire.PathDischarge, form(append([]string{"id64", b64(id)}, more...)...), "Bakery-Protocol-Version", "3")
	}
	ended, never := w.mint(caveat.ModeOpen), w.mint(caveat.ModeOpen)
	ask(ended).discharge(t)
	for _, id := range [][]byte{ended, never} { // the second before it began
		if got := w.post(wire.PathLogout, form("id64", b64(id))); got.status != http.StatusOK {
			t.Fatalf("logout: %d %s", got.status, got.body)
		}
	}
	same("an open session that ended, and one that never began", ask(ended), ask(never))

	live, gone := w.mint(caveat.ModeRotate), w.mint(caveat.ModeRotate)
	for _, id := range [][]byte{live, gone} {
		first := ask(id).discharge(t)
		ask(id, "token64", first.RefreshToken, "token-kind", "refresh").discharge(t)
		if bytes.Equal(id, gone) {
			if got := w.post(wire.PathLogout, form("id64", b64(id), "token64", first.RefreshToken, "token-kind", "refresh")); got.status != http.StatusOK {
				t.Fatalf("logout: %d %s", got.status, got.body)
			}
		}
	}
	same("a rotating session that lives, and one that ended, without a token", ask(live), ask(gone))
}

// TestAttackOtherUser claims another user, session and homeserver beside the
// caveat. Nothing is ever taken from there.
func TestAttackOtherUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.post(wire.PathDischarge, form("id64", b64(w.mint(caveat.ModeOpen)), "user", "@bob:a.example", "homeserver", "b.example",
		"session", "AAAAAAAAAAAAAAAAAAAAAA", "mode", "open", "ttl", "1000000")).discharge(t)
	if n := w.stored(); n != 1 {
		t.Errorf("%d sessions of the caveat's user are stored", n)
	}
}

// TestAttackSmuggling sends requests that two servers might read differently.
// This one reads none of them as anything else but an error.
func TestAttackSmuggling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const smuggled = "GET /publickey HTTP/1.1\r\nHost: x\r\n\r\n"
	for what, head := range map[string]string{
		"two lengths":         "Content-Length: 0\r\nContent-Length: 5\r\n",
		"a length twice over": "Content-Length: 0, 5\r\n",
		"a signed length":     "Content-Length: +0\r\n",
		"two encodings":       "Transfer-Encoding: chunked, identity\r\n",
		"an unknown encoding": "Transfer-Encoding: xchunked\r\n",
		"a space in a name":   "Content-Length : 0\r\n",
	} {
		conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
		testkit.NoError(t, err)
		testkit.NoError(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		fmt.Fprintf(conn, "POST /logout HTTP/1.1\r\nHost: x\r\n%s\r\n%s", head, smuggled)
		b, err := io.ReadAll(conn) // until the server hangs up
		conn.Close()
		if err != nil || bytes.Count(b, []byte("HTTP/1.1 ")) != 1 || !strings.HasPrefix(string(b), "HTTP/1.1 4") && !strings.HasPrefix(string(b), "HTTP/1.1 501") {
			t.Errorf("%s: %v, %q", what, err, b)
		}
	}
}

// TestAttackSlowHeaders begins a request and never ends it.
func TestAttackSlowHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
	testkit.NoError(t, err)
	defer conn.Close()
	testkit.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	fmt.Fprint(conn, "POST /discharge HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	if _, err := io.Copy(io.Discard, bufio.NewReader(conn)); err != nil {
		t.Errorf("the server waits for ever: %v", err)
	}
}

// TestAttackForeignClient: the API key of another homeserver names no client of
// this one's sessions, and fetches nothing for its sessions in mode held.
func TestAttackForeignClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	for name, c := range map[string]struct{ key, from, client string }{
		"its own homeserver": {apiKey, "192.0.2.7", "named"},
		"another homeserver": {strangersKey, "127.0.0.1", "Go-http-client"},
	} {
		user := "@" + name + ":a.example"
		m, err := w.hs.Mint(homeserver.MintParams{User: user, Device: "PHONE", Mode: caveat.ModeOpen})
		testkit.NoError(t, err)
		w.post(wire.PathDischarge, form("id64", b64(m.Macaroon.Caveats()[0].Id), "client-ip", "192.0.2.7", "user-agent", "named"),
			"Authorization", "Bearer "+c.key).discharge(t)
		list, err := w.api(apiKey).Sessions(t.Context(), user)
		testkit.NoError(t, err)
		if len(list) != 1 || list[0].FirstIP.String() != c.from || list[0].FirstClient != c.client {
			t.Errorf("%s: %+v", name, list)
		}
	}
	held := b64(w.mint(caveat.ModeHeld))
	a := w.post(wire.PathDischarge, form("id64", held), "Authorization", "Bearer "+strangersKey)
	if e := a.error(t); a.status != 401 || e.Info.Reason != wire.ReasonHomeserverRequired || e.Info.Ended || e.Info.SoftLogout != nil {
		t.Errorf("mode held, another homeserver's key: %d %s", a.status, a.body)
	}
}

// TestAttackNarrowedToken: a refresh token that its holder narrowed to an
// address gives discharges that are good from there only, as a homeserver verifies them.
func TestAttackNarrowedToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m, err := w.hs.Mint(homeserver.MintParams{User: "@alice:a.example", Device: "PHONE", Mode: caveat.ModeRotate})
	testkit.NoError(t, err)
	access := client.Access{Macaroon: m.Macaroon}
	first, err := w.api("").Discharge(t.Context(), client.Request{Access: access})
	testkit.NoError(t, err)
	narrowed, err := first.Token.Attenuate("client-ip 127.0.0.0/8")
	testkit.NoError(t, err)
	for range 2 { // the successor is as narrow
		g, err := w.api("").Discharge(t.Context(), client.Request{Access: access, Token: narrowed})
		testkit.NoError(t, err)
		narrowed = g.Token
		bundle, err := g.Bundle()
		testkit.NoError(t, err)
		for addr, want := range map[string]error{"127.0.0.1": nil, "::ffff:127.9.9.9": nil, "192.0.2.7": homeserver.ErrNotMet} {
			_, err := w.hs.Verify(t.Context(), bundle, homeserver.Request{ClientIP: netip.MustParseAddr(addr)})
			if !errors.Is(err, want) {
				t.Errorf("from %s: %v, want %v", addr, err, want)
			}
		}
		var conditions []string
		for _, c := range g.Discharge.Caveats() {
			conditions = append(conditions, string(c.Id))
		}
		if !slices.Contains(conditions, "client-ip 127.0.0.0/8") {
			t.Errorf("the discharge has %q", conditions)
		}
	}
	elsewhere, err := narrowed.Attenuate("client-ip 192.0.2.7")
	testkit.NoError(t, err)
	_, err = w.api("").Discharge(t.Context(), client.Request{Access: access, Token: elsewhere})
	var refused *client.RefusedError
	if !errors.As(err, &refused) || refused.Reason != wire.ReasonTokenInvalid || refused.Ended {
		t.Errorf("from another address: %v", err)
	}
	if _, err := w.api("").Discharge(t.Context(), client.Request{Access: access, Token: narrowed}); err != nil {
		t.Errorf("the session does not live on: %v", err)
	}
}
