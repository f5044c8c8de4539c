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

// Gateway configures the reverse proxy before an unmodified Matrix homeserver. In a
// process with the service only Upstream is required.
type Gateway struct {
	Listen      string `yaml:"listen"`       // host:port for Matrix clients and federation
	Upstream    string `yaml:"upstream"`     // URL of the homeserver, or unix: and the path of its socket
	UpstreamTLS *TLS   `yaml:"upstream_tls"` // for https; nil: the system's authorities, no client certificate
	PublicURL   string `yaml:"public_url"`   // URL of Listen for clients; empty: URLs in answers are not rewritten

	Name     string `yaml:"name"`                  // name of the homeserver, in the key of every session: it cannot change
	KeysFile string `yaml:"keys_file" file:"read"` // keys of the homeserver; empty: gateway.json in the data directory
	Policy   string `yaml:"policy"`                // of its sessions; empty: default
	Service  string `yaml:"service"`               // URL of the service, for "discharger gateway"; empty: the one in the key file

	SecurityEvents *SecurityEvents `yaml:"security_events"` // receiver of revocations, with "serve"; nil: none

	Legacy                   Legacy        `yaml:"legacy"`                // handling of the homeserver's own tokens
	LegacyUntil              time.Time     `yaml:"legacy_until"`          // with upgrade: they are refused from this time on
	RejectLegacyAfterUpgrade bool          `yaml:"once_new_always_new"`   // refuse the old tokens of a user who has a new one
	ForeignTokens            []Digest      `yaml:"foreign_tokens_sha256"` // always passed on, such as the as_token of an application service
	Reconcile                time.Duration `yaml:"reconcile_interval"`    // interval of comparing sessions with the service; 0: never
	ForgetAfter              time.Duration `yaml:"forget_after"`          // time from a soft end to the logout of the device at the homeserver; 0: never

	Limits GatewayLimits `yaml:"limits"`
}

// GatewayLimits bound the requests and the memory of a gateway.
type GatewayLimits struct {
	Requests           int `yaml:"requests" min:"1"`                     // in progress
	RequestsPerAddress int `yaml:"requests_per_address" min:"1"`         // of one client address
	Lasting            int `yaml:"lasting_requests" min:"1"`             // of long polls and long transfers, in progress
	LastingPerAddress  int `yaml:"lasting_requests_per_address" min:"1"` // of one client address
	CacheMiB           int `yaml:"cache_mib" min:"1" max:"1048576"`      // memory for sessions in use
}

// Legacy is the handling of tokens that the homeserver issued.
type Legacy string

// Kinds of handling.
const (
	LegacyForward Legacy = "forward" // passed on
	LegacyUpgrade Legacy = "upgrade" // passed on until a date, and refused softly from then on
	LegacyReject  Legacy = "reject"  // refused softly
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
	d.baseURL(key+"public_url", g.PublicURL)
	d.baseURL(key+"service", g.Service)
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

// maxSocket is the length of a socket path that every system accepts, in bytes.
const maxSocket = 103

func (d *decoder) validateUpstream(c *Config) {
	g := c.Gateway
	const key = "gateway.upstream"
	socket, unix := strings.CutPrefix(g.Upstream, "unix:")
	switch {
	case g.Upstream == "":
		d.missing(key, "write the URL of the homeserver, such as http://127.0.0.1:8008, or unix: and the path of its socket")
	case unix && (!filepath.IsAbs(socket) || strings.HasPrefix(socket, "//")):
		d.at(key, "want the path of a socket from the root, such as unix:/run/matrix/synapse.sock, got %q", yamlfile.Shorten(g.Upstream))
	case unix && len(socket) > maxSocket:
		d.at(key, "want a path of at most %d bytes, got %d", maxSocket, len(socket))
	case !unix:
		d.baseURL(key, g.Upstream)
		d.notOwn(key, g.Upstream, c)
	}
	d.certificate(key+"_tls", g.UpstreamTLS)
	if g.UpstreamTLS != nil && !strings.HasPrefix(g.Upstream, "https://") {
		d.at(key+"_tls", "requires an upstream of https")
	}
}

// notOwn reports an upstream at which this program itself listens.
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
			d.at(key, "is the address of %s; want the address of the homeserver", own.name)
		}
	}
}

func (d *decoder) validateLegacy(g *Gateway) {
	const key = "gateway."
	switch g.Legacy {
	case LegacyForward, LegacyReject:
		if !g.LegacyUntil.IsZero() {
			d.at(key+"legacy_until", "requires legacy: upgrade; %s has no end", g.Legacy)
		}
	case LegacyUpgrade:
		if g.LegacyUntil.IsZero() {
			d.missing(key+"legacy_until", "legacy: upgrade accepts old tokens until then; write, for instance, 2027-01-31T00:00:00Z")
		}
	}
}

// baseURL checks a URL to which paths are appended, unless it is empty.
func (d *decoder) baseURL(key, text string) {
	if text == "" {
		return
	}
	if u := webURL(text); u == nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		d.at(key, "want http or https and a host, such as http://127.0.0.1:8008, got %q", yamlfile.Shorten(text))
	}
}
