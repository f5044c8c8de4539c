package server_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// TestAttackEnumeration: who has only a caveat cannot tell from the answer what
// became of its session.
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
		return w.post(api.PathDischarge, form(append([]string{"id64", b64(id)}, more...)...), "Bakery-Protocol-Version", "3")
	}
	ended, never := w.mint(caveat.ModeOpen), w.mint(caveat.ModeOpen)
	ask(ended).discharge(t)
	for _, id := range [][]byte{ended, never} { // the second before it began
		if got := w.post(api.PathLogout, form("id64", b64(id))); got.status != http.StatusOK {
			t.Fatalf("logout: %d %s", got.status, got.body)
		}
	}
	same("an open session that ended, and one that never began", ask(ended), ask(never))

	live, gone := w.mint(caveat.ModeRotate), w.mint(caveat.ModeRotate)
	for _, id := range [][]byte{live, gone} {
		first := ask(id).discharge(t)
		ask(id, "token64", first.RefreshToken, "token-kind", "refresh").discharge(t)
		if bytes.Equal(id, gone) {
			if got := w.post(api.PathLogout, form("id64", b64(id), "token64", first.RefreshToken, "token-kind", "refresh")); got.status != http.StatusOK {
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
	w.post(api.PathDischarge, form("id64", b64(w.mint(caveat.ModeOpen)), "user", "@bob:a.example", "homeserver", "b.example",
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
		must(t, err)
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
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
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	fmt.Fprint(conn, "POST /discharge HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	if _, err := io.Copy(io.Discard, bufio.NewReader(conn)); err != nil {
		t.Errorf("the server waits for ever: %v", err)
	}
}
