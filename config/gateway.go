package config

import (
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
)

// Gateway is a reverse proxy in front of a Matrix homeserver that knows nothing
// of discharges. Listen and Upstream are enough, beside the service in one
// process.
type Gateway struct {
	Listen      string `yaml:"listen"`       // host:port for Matrix clients and whoever else speaks with the homeserver
	Upstream    string `yaml:"upstream"`     // URL of the homeserver, or unix: and the path of its socket
	UpstreamTLS *TLS   `yaml:"upstream_tls"` // for https; nil: the system's authorities, and no certificate
	PublicURL   string `yaml:"public_url"`   // where clients reach Listen; empty: answers that say where are left alone

	Name     string `yaml:"name"`                  // as the service knows it: part of every session's key, so it stays
	KeysFile string `yaml:"keys_file" file:"read"` // a homeserver's keys; empty: gateway.json in the data directory
	Policy   string `yaml:"policy"`                // for its sessions; empty: default
	Service  string `yaml:"service"`               // for "discharger gateway": URL of the service; empty: as the key file says

	SecurityEvents *SecurityEvents `yaml:"security_events"` // with "serve": who else is told what is revoked; nil: nobody

	Legacy        Legacy        `yaml:"legacy"`                // what becomes of tokens that are not the gateway's
	LegacyUntil   time.Time     `yaml:"legacy_until"`          // with upgrade: from then on they are refused
	OnceNew       bool          `yaml:"once_new_always_new"`   // a user who has had a new token has no use for old ones
	ForeignTokens []Digest      `yaml:"foreign_tokens_sha256"` // tokens that are passed on in any case, such as as_token of application services
	Reconcile     time.Duration `yaml:"reconcile_interval"`    // how often the service is asked which sessions there still are; 0: never
	ForgetAfter   time.Duration `yaml:"forget_after"`          // how long after a soft end a device stays at the homeserver; 0: for ever

	Limits GatewayLimits `yaml:"limits"`
}

// GatewayLimits bound what clients can take up of a gateway.
type GatewayLimits struct {
	Requests           int `yaml:"requests" min:"1"`                     // answered at a time
	RequestsPerAddress int `yaml:"requests_per_address" min:"1"`         // of one client address
	Lasting            int `yaml:"lasting_requests" min:"1"`             // that wait for news or last long, answered at a time
	LastingPerAddress  int `yaml:"lasting_requests_per_address" min:"1"` // of one client address
	CacheMiB           int `yaml:"cache_mib" min:"1" max:"1048576"`      // memory for what is kept of sessions in use
}

// Legacy says what becomes of tokens that are not the gateway's.
type Legacy string

// The ways to deal with them.
const (
	LegacyForward Legacy = "forward" // they are the homeserver's business, for ever
	LegacyUpgrade Legacy = "upgrade" // likewise, until a date; then clients have to log in again, and keep their keys
	LegacyReject  Legacy = "reject"  // clients have to log in again, and keep their keys
)

func (Legacy) names() []string {
	return []string{string(LegacyForward), string(LegacyUpgrade), string(LegacyReject)}
}

// setDefaults sets the values of a gateway of which only upstream is given.
func (g *Gateway) setDefaults() {
	*g = Gateway{
		Listen: "127.0.0.1:8092", Name: "gateway", Legacy: LegacyForward, Reconcile: time.Hour, ForgetAfter: 90 * 24 * time.Hour,
		Limits: GatewayLimits{Requests: 4096, RequestsPerAddress: 256, Lasting: 65536, LastingPerAddress: 2048, CacheMiB: 256},
	}
}

// GatewayKeyFile is the path of the gateway's key file.
func (c *Config) GatewayKeyFile() string {
	if c.Gateway != nil && c.Gateway.KeysFile != "" {
		return c.Gateway.KeysFile
	}
	return filepath.Join(c.DataDir, "gateway.json")
}

// GatewayVaultFile is the path of the file in which the gateway keeps what it
// owes.
func (c *Config) GatewayVaultFile() string { return filepath.Join(c.DataDir, "gateway.db") }

func (d *decoder) validateGateway(c *Config) {
	g := c.Gateway
	if g == nil {
		return
	}
	const key = "gateway."
	d.address(key+"listen", g.Listen, true)
	for other, address := range map[string]string{"listen": c.Listen, "admin_listen": c.AdminListen} {
		if g.Listen == address && !strings.HasSuffix(address, ":0") {
			d.at(key+"listen", "is the same as %s", other)
		}
	}
	d.validateUpstream(c)
	if g.PublicURL != "" {
		d.baseURL(key+"public_url", g.PublicURL)
	}
	if g.Service != "" {
		d.baseURL(key+"service", g.Service)
	}
	d.name(key+"name", g.Name)
	d.policyName(key+"policy", g.Policy)
	for i, h := range c.Homeservers {
		if h.Name == g.Name && g.KeysFile == "" {
			d.at(key+"name", "%q is the name of homeservers[%d] too; the gateway registers itself", g.Name, i)
		}
	}
	if g.Reconcile < 0 || g.Reconcile > 0 && g.Reconcile < time.Minute {
		d.at(key+"reconcile_interval", "want 1m or more, or 0s for never; got %s", g.Reconcile)
	}
	if g.ForgetAfter < 0 || g.ForgetAfter > 0 && g.ForgetAfter < time.Second {
		d.at(key+"forget_after", "want 1s or more, or 0s for never; got %s", g.ForgetAfter)
	}
	d.validateLegacy(g)
}

// maxSocket is the longest path of a socket, in bytes, that every system takes.
const maxSocket = 103

func (d *decoder) validateUpstream(c *Config) {
	g := c.Gateway
	const key = "gateway.upstream"
	socket, unix := strings.CutPrefix(g.Upstream, "unix:")
	switch {
	case g.Upstream == "":
		d.missing(key, "; write the URL of the homeserver, such as http://127.0.0.1:8008, or unix: and the path of its socket")
	case unix && (!filepath.IsAbs(socket) || strings.HasPrefix(socket, "//")):
		d.at(key, "want the path of a socket from the root, such as unix:/run/matrix/synapse.sock, got %q", yamlfile.Shorten(g.Upstream))
	case unix && len(socket) > maxSocket:
		d.at(key, "the path of a socket has at most %d bytes, and this has %d", maxSocket, len(socket))
	case !unix:
		d.baseURL(key, g.Upstream)
		d.notOwn(key, g.Upstream, c)
	}
	t := g.UpstreamTLS
	if t == nil {
		return
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		d.at(key+"_tls", "cert_file and key_file go together")
	}
	if !strings.HasPrefix(g.Upstream, "https://") {
		d.at(key+"_tls", "goes with an upstream by https")
	}
}

// notOwn refuses an upstream at which this program listens itself.
func (d *decoder) notOwn(key, upstream string, c *Config) {
	u, err := url.Parse(upstream)
	if err != nil || u.Port() == "" {
		return
	}
	for _, own := range []struct{ name, address string }{
		{"gateway.listen", c.Gateway.Listen}, {"listen", c.Listen}, {"admin_listen", c.AdminListen},
	} {
		host, port, err := net.SplitHostPort(own.address)
		if err != nil || port != u.Port() {
			continue
		}
		at, _ := netip.ParseAddr(host)
		to, _ := netip.ParseAddr(u.Hostname())
		local := u.Hostname() == "localhost" || to.IsLoopback() || to.IsUnspecified()
		if host == u.Hostname() || at.IsValid() && at == to || local && (host == "" || host == "localhost" || at.IsUnspecified()) ||
			u.Hostname() == "localhost" && at.IsLoopback() {
			d.at(key, "is where %s is: want the address of the homeserver itself", own.name)
		}
	}
}

func (d *decoder) validateLegacy(g *Gateway) {
	const key = "gateway."
	switch g.Legacy {
	case LegacyForward, LegacyReject:
		if !g.LegacyUntil.IsZero() {
			d.at(key+"legacy_until", "goes with legacy: upgrade, and %s has no end", g.Legacy)
		}
	case LegacyUpgrade:
		if g.LegacyUntil.IsZero() {
			d.missing(key+"legacy_until", "; legacy: upgrade accepts old tokens until then; write, for instance, 2027-01-31T00:00:00Z")
		}
	}
}

// baseURL checks a URL that paths are put after.
func (d *decoder) baseURL(key, text string) {
	if u := webURL(text); u == nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		d.at(key, "want http or https and a host, such as http://127.0.0.1:8008, got %q", yamlfile.Shorten(text))
	}
}
