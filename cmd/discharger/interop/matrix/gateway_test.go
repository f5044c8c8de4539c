package matrix

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// ttl is the lifetime of discharges. Clients with a refresh token receive a slightly
// shorter expiry.
const ttl = 4 * time.Second

// gateway is a gateway before a homeserver.
type gateway struct {
	site
	homeserver *homeserver
	out        output
	admin      string
}

// startGateway starts a service with a gateway in one process.
func startGateway(t *testing.T, k *kit, h *homeserver) *gateway {
	t.Helper()
	dir := t.TempDir()
	addrs := freeAddrs(t, 3)
	addr, admin := addrs[0], addrs[1]
	g := &gateway{site: site{url: "http://" + addr}, homeserver: h, admin: "http://" + admin}
	config := fmt.Sprintf(`
listen: %s
admin_listen: %s
data_dir: %s
request_timeout: 4s
discharge: {ttl: %s}
gateway:
  listen: %s
  upstream: %s
`, addrs[2], admin, filepath.Join(dir, "data"), ttl, addr, h.url)
	file := filepath.Join(dir, "discharger.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, &g.out, dir, k.discharger, "serve", "--config", file)
	ready(t, p, g.url+"/_matrix/client/versions")
	return g
}

// ready waits until an address answers with 200.
func ready(t *testing.T, p *process, url string) {
	t.Helper()
	eventually(t, p.name+" answers", func() bool {
		if p.ended() {
			t.Fatalf("%s ended:\n%s", p.name, p.out.String())
		}
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}
