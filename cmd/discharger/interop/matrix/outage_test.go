package matrix

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// apart is a service, its Redis and a gateway, each in a process of its own.
type apart struct {
	gateway
	kit            *kit
	dir            string
	redis, service *process
	serviceURL     string
}

// outageTTL leaves time to test a discharge that has not expired.
const outageTTL = 12 * time.Second

func startApart(t *testing.T, k *kit, h *homeserver, ttl time.Duration) *apart {
	t.Helper()
	addrs := freeAddrs(t, 4)
	addr, admin := addrs[0], addrs[1]
	a := &apart{kit: k, dir: t.TempDir(), serviceURL: "http://" + addrs[2]}
	a.gateway.homeserver, a.gateway.url, a.gateway.admin = h, "http://"+addr, "http://"+admin
	a.startRedis(t)
	service := fmt.Sprintf(`
listen: %s
admin_listen: %s
data_dir: service
request_timeout: 4s
discharge: {ttl: %s}
store: {redis: {addresses: [%s], timeouts: {dial: 3s, read: 3s, write: 3s}}}
`, strings.TrimPrefix(a.serviceURL, "http://"), addrs[3], ttl, a.socket())
	a.write(t, "service.yaml", service)
	if err := os.Mkdir(filepath.Join(a.dir, "service"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.run(t, "keys", "new", "service/keys.json")
	a.startService(t)
	// The gateway is registered like a homeserver.
	a.write(t, "service.yaml", service+a.run(t, "keys", "new", "--kind", "homeserver", "--name", "gateway", "--service", a.serviceURL, "gateway.json"))
	a.service.stop(t, syscall.SIGTERM)
	a.startService(t)
	a.write(t, "gateway.yaml", fmt.Sprintf(`
admin_listen: %s
data_dir: gateway
gateway: {listen: %s, upstream: %s, keys_file: gateway.json}
`, admin, addr, h.url))
	p := start(t, &a.gateway.out, a.dir, k.discharger, "gateway", "--config", "gateway.yaml")
	ready(t, p, a.gateway.url+"/_matrix/client/versions")
	return a
}

func (a *apart) socket() string { return filepath.Join(a.dir, "redis.sock") }

func (a *apart) startRedis(t *testing.T) {
	t.Helper()
	a.redis = start(t, new(output), a.dir, "redis-server", "--port", "0", "--unixsocket", a.socket(), "--save", "", "--appendonly", "yes",
		"--appendfsync", "always", "--dir", a.dir)
	eventually(t, "Redis answers", func() bool {
		out, err := runIn(a.dir, "redis-cli", "-s", a.socket(), "ping")
		return err == nil && strings.Contains(string(out), "PONG")
	})
}

func (a *apart) startService(t *testing.T) {
	t.Helper()
	a.service = start(t, new(output), a.dir, a.kit.discharger, "serve", "--config", "service.yaml")
	ready(t, a.service, a.serviceURL+"/discharge/info")
}

func (a *apart) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs the binary and returns its standard output.
func (a *apart) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := runIn(a.dir, a.kit.discharger, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// testApart runs the tests that need a service apart from its gateway, in sequence.
func testApart(t *testing.T, k *kit, h *homeserver) {
	a := startApart(t, k, h, outageTTL)
	t.Run("revoked", a.testRevoked)
	// A process that is started again lives as long as the others.
	t.Run("service killed", func(sub *testing.T) {
		a.testOutage(sub, "outage1", func() { a.service.stop(sub, syscall.SIGKILL) }, func() { a.startService(t) })
	})
	t.Run("store killed", func(sub *testing.T) {
		a.testOutage(sub, "outage2", func() { a.redis.stop(sub, syscall.SIGKILL) }, func() { a.startRedis(t) })
	})
	t.Run("secrets", func(t *testing.T) { a.testSecrets(t, h.everyToken(t)) })
}

// testRevoked ends sessions as an operator, without a token of the homeserver. Their
// devices are removed, so that clients stop sending keys to them.
func (a *apart) testRevoked(t *testing.T) {
	one, other := a.pair(t, "revoked")
	kept := one.user.login(t, nil)
	sessions := a.run(t, "sessions", "list", "--key", "gateway.json", one.user.id())
	for _, d := range []*device{one, other, kept} {
		if !strings.Contains(sessions, d.id) {
			t.Errorf("device %s is not in the list:\n%s", d.id, sessions)
		}
	}
	gone := func(devices ...*device) {
		t.Helper()
		for _, d := range devices {
			eventually(t, "the device is gone from the homeserver", func() bool { return !a.homeserver.has(t, d) })
			d.ended(t)
		}
	}
	a.run(t, "sessions", "revoke-device", "--key", "gateway.json", one.user.id(), one.id)
	gone(one)
	other.alive(t)
	kept.alive(t)
	a.run(t, "sessions", "revoke-user", "--key", "gateway.json", one.user.id())
	gone(other, kept)
}

// testOutage kills a process. Until a discharge expires, requests succeed; after that
// the answer is one that clients retry; and once the process is back, all go on.
func (a *apart) testOutage(t *testing.T, name string, kill, restore func()) {
	u := a.register(t, name)
	unaware, aware := u.login(t, nil), u.login(t, body{"refresh_token": true})
	aware.take(t, aware.refreshed(t).ok(t))
	unaware.alive(t)
	aware.alive(t)
	kill()
	unaware.alive(t)
	aware.alive(t)
	aware.undecided(t, aware.refreshed(t))
	eventually(t, "the discharge of the unaware client runs out", func() bool {
		answer := unaware.whoami(t)
		if answer.status != http.StatusOK && answer.status < 500 {
			t.Fatalf("refused: %d %s", answer.status, answer.raw)
		}
		return answer.status != http.StatusOK
	})
	aware.undecided(t, aware.refreshed(t))
	restore()
	eventually(t, "the unaware client goes on", func() bool { return unaware.whoami(t).status == http.StatusOK })
	eventually(t, "the other client refreshes", func() bool {
		answer := aware.refreshed(t)
		if answer.status != http.StatusOK {
			aware.undecided(t, answer)
			return false
		}
		aware.take(t, answer)
		return true
	})
	aware.alive(t)
	aware.call(t, "POST", "/logout", body{}).ok(t)
	aware.ended(t)
}

// undecided fails the test unless an answer is one that clients retry. JSON of any
// status makes matrix-js-sdk log out.
func (d *device) undecided(t *testing.T, a answer) {
	t.Helper()
	if a.status < 500 || strings.Contains(a.header.Get("Content-Type"), "json") {
		t.Fatalf("got %d %s %s", a.status, a.header.Get("Content-Type"), a.raw)
	}
}
