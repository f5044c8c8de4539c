package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// TestStreamsDoNotHoldUpShutdown has a homeserver follow the feed while the
// service reloads and while it ends: the stream goes on, and then ends at once.
func TestStreamsDoNotHoldUpShutdown(t *testing.T) {
	t.Parallel()
	pair := caveat.GenerateKey()
	const key = "an API key of the test"
	p, client, _ := startService(t, fmt.Sprintf(
		"shutdown_timeout: 1h\nhomeservers:\n  - name: example.org\n    public_key: %s\n    api_key_sha256: [%x]\n", pair.Public, sha256.Sum256([]byte(key))))
	follow := func() *bufio.Scanner {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+client+wire.PathRevocations, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(wire.HeaderAuthorization, wire.AuthorizationPrefix+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "event: "+wire.EventCurrent) {
				return lines
			}
		}
		t.Fatalf("status %d, and the stream ended", resp.StatusCode)
		return nil
	}
	lines := follow()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := p.waitForTimes("msg=reloaded", 1); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to its end
	}
	if code, err := p.wait(); err != nil || code != 0 {
		t.Errorf("exit code %d, %v\n%s", code, err, p.text())
	}
}
