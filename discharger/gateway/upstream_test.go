package gateway

import (
	"crypto/tls"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/discharger/discharger/discharger/testkit"
)

// A homeserver that delegates logins causes a warning.
func TestDelegatedLogins(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		if synctest.Wait(); !strings.Contains(w.log.String(), "delegates logins") {
			t.Error("no warning")
		}
	}, func(w *world) { w.hs.delegating = true })
	w := newWorld(t)
	w.gateway.inspectUpstream(t.Context())
	if strings.Contains(w.log.String(), "delegates logins") {
		t.Error("warning without delegated logins")
	}
}

// An invalid configuration is refused by New.
func TestConfig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, change := range map[string]func(*Config){
		"no upstream":      func(c *Config) { c.Upstream = "" },
		"upstream's path":  func(c *Config) { c.Upstream += "/x" },
		"upstream's user":  func(c *Config) { c.Upstream = "http://u:p@h" },
		"upstream socket":  func(c *Config) { c.Upstream = "unix:hs.sock" },
		"socket's host":    func(c *Config) { c.Upstream = "unix://host/hs.sock" },
		"TLS for http":     func(c *Config) { c.UpstreamTLS = new(tls.Config) },
		"public URL":       func(c *Config) { c.PublicURL = "matrix.example" },
		"no API key":       func(c *Config) { c.APIKey = nil },
		"no keys":          func(c *Config) { c.Keys = nil },
		"no service":       func(c *Config) { c.ServiceURL = "" },
		"no outbox":        func(c *Config) { c.Outbox = "" },
		"outbox in use":    func(*Config) {},
		"negative leeway":  func(c *Config) { c.Leeway = -1 },
		"zero service key": func(c *Config) { c.Discharger = [32]byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := w.cfg
			cfg.Registerer = nil
			change(&cfg)
			if g, err := New(cfg); err == nil || g != nil {
				t.Error("accepted")
			}
		})
	}
	cfg := w.cfg
	cfg.Upstream += "/"
	cfg.Outbox += "2"
	cfg.Registerer = nil
	g, err := New(cfg)
	testkit.NoError(t, err)
	testkit.NoError(t, g.Close())
}
