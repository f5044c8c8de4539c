package matrix

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// deployment is a service with its gateways before a homeserver.
type deployment struct {
	settings
	kit        *kit
	homeserver *homeserver
	dir        string
	serviceURL string
	key        string // file name of the gateways' keys
	service    *process
	upstream   string       // URL of the homeserver, or of the counting proxy before it
	refused    atomic.Int32 // logouts refused by the homeserver, if counted
	fronts     []*process   // of the gateways; none: the gateway is in the service's process
	gateways   []*gateway
}

// settings are the parts of a configuration that differ between tests.
type settings struct {
	apart  int           // gateways with a process of their own; 0: one in the service's process
	ttl    time.Duration // of a discharge
	idle   time.Duration // session.idle; 0: for ever
	forget time.Duration // gateway.forget_after; 0: the default
	count  bool          // count logouts refused by the homeserver
	before string        // URL of a proxy before the homeserver; empty: none
	more   string        // members of the section gateway, each with a comma before it
}

// with returns the settings with a number of gateways apart.
func (s settings) with(apart int) settings {
	s.apart = apart
	return s
}

const (
	serviceConfig = "service.yaml"
	serviceData   = "service"
	sharedKeys    = "gateway.json"
)

// deploy starts a service and gateways until the test ends.
func deploy(t *testing.T, k *kit, h *homeserver, s settings) *deployment {
	t.Helper()
	d := &deployment{settings: s, kit: k, homeserver: h, dir: t.TempDir(), key: sharedKeys, upstream: h.url}
	if s.count {
		d.upstream = d.startCounting(t)
	}
	if s.before != "" {
		d.upstream = s.before
	}
	addrs := freeAddrs(t, 2)
	d.serviceURL = "http://" + addrs[0]
	service := fmt.Sprintf("listen: %s\nadmin_listen: %s\ndata_dir: %s\ndischarge: {ttl: %s}\n", addrs[0], addrs[1], serviceData, s.ttl)
	if s.idle > 0 {
		service += fmt.Sprintf("session: {idle: %s}\n", s.idle)
	}
	for range max(1, s.apart) {
		d.gateways = append(d.gateways, d.newGateway(t))
	}
	if s.apart == 0 {
		d.key = filepath.Join(serviceData, "gateway.json")
		d.write(t, serviceConfig, service+d.section(d.gateways[0], ""))
		d.startService(t)
		return d
	}
	if err := os.Mkdir(filepath.Join(d.dir, serviceData), 0o700); err != nil {
		t.Fatal(err)
	}
	d.run(t, "keys", "new", filepath.Join(serviceData, "keys.json"))
	d.write(t, serviceConfig, service)
	d.startService(t)
	// The gateways are registered as one homeserver.
	service += d.run(t, "keys", "new", "--kind", "homeserver", "--name", "gateway", "--service", d.serviceURL, sharedKeys)
	d.write(t, serviceConfig, service)
	d.restartService(t, syscall.SIGTERM)
	d.fronts = make([]*process, s.apart)
	for i, g := range d.gateways {
		config := fmt.Sprintf("admin_listen: %s\ndata_dir: %s\n", strings.TrimPrefix(g.admin, "http://"), gatewayName(i))
		d.write(t, gatewayName(i)+".yaml", config+d.section(g, sharedKeys))
		d.startGateway(t, i)
	}
	return d
}

// startCounting starts a proxy that counts logouts refused by the homeserver, and
// returns its URL.
func (d *deployment) startCounting(t *testing.T) string {
	t.Helper()
	target, err := url.Parse(d.homeserver.url)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", freeAddrs(t, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode == http.StatusForbidden && r.Request.URL.Path == clientV3+"/logout" {
			d.refused.Add(1)
		}
		return nil
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: proxy}}
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

func gatewayName(i int) string { return fmt.Sprintf("gateway%d", i) }

func (d *deployment) newGateway(t *testing.T) *gateway {
	t.Helper()
	addrs := freeAddrs(t, 2)
	return &gateway{site: site{url: "http://" + addrs[0]}, homeserver: d.homeserver, admin: "http://" + addrs[1]}
}

// section returns the section gateway of a configuration.
func (d *deployment) section(g *gateway, keys string) string {
	more := d.more
	if keys != "" {
		more += ", keys_file: " + keys
	}
	if d.forget > 0 {
		more += ", forget_after: " + d.forget.String()
	}
	return fmt.Sprintf("gateway: {listen: %q, upstream: %q%s}\n", strings.TrimPrefix(g.url, "http://"), d.upstream, more)
}

func (d *deployment) startService(t *testing.T) {
	t.Helper()
	out, path := new(output), d.serviceURL+"/discharge/info"
	if d.apart == 0 {
		out, path = &d.gateways[0].out, d.gateways[0].url+"/_matrix/client/versions"
	}
	d.service = start(t, out, d.dir, d.kit.discharger, "serve", "--config", serviceConfig)
	ready(t, d.service, path)
}

func (d *deployment) startGateway(t *testing.T, i int) {
	t.Helper()
	g := d.gateways[i]
	d.fronts[i] = start(t, &g.out, d.dir, d.kit.discharger, "gateway", "--config", gatewayName(i)+".yaml")
	ready(t, d.fronts[i], g.url+"/_matrix/client/versions")
}

// restartService stops the service, and the gateway in its process, and starts
// it again.
func (d *deployment) restartService(t *testing.T, sig syscall.Signal) {
	t.Helper()
	d.service.stop(t, sig)
	d.startService(t)
}

// restartGateways stops the gateways and starts them again.
func (d *deployment) restartGateways(t *testing.T, sig syscall.Signal) {
	t.Helper()
	for i, p := range d.fronts {
		p.stop(t, sig)
		d.startGateway(t, i)
	}
}

func (d *deployment) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs the binary and returns its standard output.
func (d *deployment) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := runIn(d.dir, d.kit.discharger, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// revoke ends the sessions of a user as an operator does. Their devices are
// logged out at the homeserver in the background.
func (d *deployment) revoke(t *testing.T, u *user) {
	t.Helper()
	d.run(t, "sessions", "revoke-user", "--key", d.key, u.id())
}

// settle waits until every gateway has made the logouts at the homeserver that were
// due at the call. It waits for two logouts: the pass that makes the first may have
// begun before.
func (d *deployment) settle(t *testing.T) {
	t.Helper()
	for range 2 {
		u := d.newUser(t)
		var markers []*device
		for _, g := range d.gateways {
			markers = append(markers, u.at(&g.site).login(t, nil))
		}
		d.revoke(t, u)
		for _, m := range markers {
			eventually(t, "a revoked session's device is gone from the homeserver", func() bool { return !d.homeserver.has(t, m) })
		}
	}
}

// newUser creates an account at the homeserver, without a device.
func (d *deployment) newUser(t *testing.T) *user {
	t.Helper()
	return d.homeserver.register(t, "user"+strings.ToLower(randomName()))
}
