package matrix

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestLegacy sends a homeserver's own tokens through gateways that refuse them, in
// every place and spelling in which Synapse may find them.
func TestLegacy(t *testing.T) {
	k := assembleGateway(t)
	h := startSynapse(t, k)
	for name, more := range map[string]string{
		"reject":   ", legacy: reject",
		"until":    ", legacy: upgrade, legacy_until: 2020-01-01T00:00:00Z",
		"once new": ", once_new_always_new: true",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testLegacy(t, h, deploy(t, k, h, settings{ttl: time.Hour, more: more}))
		})
	}
}

func testLegacy(t *testing.T, h *homeserver, d *deployment) {
	addr := strings.TrimPrefix(d.gateways[0].url, "http://")
	direct := strings.TrimPrefix(h.url, "http://")
	u := d.newUser(t)
	old := u.login(t, body{"refresh_token": true})
	u.at(&d.gateways[0].site).login(t, nil)
	for name, all := range map[string][]bypass{"forms": formBypasses(old.token), "headers and queries": otherBypasses(old.token)} {
		t.Run(name, func(t *testing.T) {
			worked := 0
			for _, b := range all {
				if granted(t, direct, b) {
					worked++
				}
				if granted(t, addr, b) {
					t.Errorf("%s: granted", b.name)
				}
			}
			if worked < 10 {
				t.Errorf("Synapse itself grants only %d of %d requests", worked, len(all))
			}
		})
	}
	t.Run("refresh", func(t *testing.T) {
		for _, b := range refreshBypasses(old.refresh) {
			if granted(t, addr, b) {
				t.Errorf("%s: granted", b.name)
			}
		}
	})
	if !h.accepts(t, old.token) {
		t.Error("the homeserver's own session is over")
	}
	// With once_new_always_new the request reaches the homeserver, whose answer names
	// the user, and the answer is withheld.
	if refresh := refreshBypasses(old.refresh)[0]; !strings.Contains(d.more, "once_new") && !granted(t, direct, refresh) {
		t.Error("the homeserver does not accept its refresh token")
	}
}

// granted makes a request and reports whether the answer is a success.
func granted(t *testing.T, addr string, b bypass) bool {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s\r\nHost: matrix.example.org\r\nConnection: close\r\n\r\n%s", b.head, b.body); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	for err == nil && resp.StatusCode == http.StatusContinue {
		resp, err = http.ReadResponse(in, nil)
	}
	if err != nil {
		return false // the connection was closed without an answer
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: %v", b.name, err)
	}
	return resp.StatusCode < http.StatusMultipleChoices && !strings.Contains(string(content), "errcode")
}
