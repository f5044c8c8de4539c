package reload

import (
	"slices"
	"strings"
	"testing"

	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/testkit"
)

// TestReread checks which changed keys are in force after a reload, and which are
// not before a restart.
func TestReread(t *testing.T) {
	t.Parallel()
	f := testkit.NewFolder(t)
	one, two := f.Write("one", "one\n"), f.Write("two", "two\n")
	redis := func(more string) string { return "store: {redis: {master_name: m, " + more + "}}\n" }
	gateway := func(more string) string { return "gateway: {" + more + "}\n" }
	for _, tt := range []struct {
		name, before, after string
		in                  scope
		changed, restart    string
	}{
		{"nothing", "listen: 127.0.0.1:1\n", "listen: 127.0.0.1:1\n", ScopeServe, "", ""},
		{"both kinds", "", "listen: 127.0.0.1:1\nlimits: {in_flight: 5000}\ndata_dir: d\nrequest_timeout: 9s\n", ScopeServe, "limits.in_flight request_timeout", "listen data_dir"},
		{"a store", "", redis("addresses: [a:1]"), ScopeServe, "", "store.redis"},
		{"no store any more", redis("addresses: [a:1]"), "", ScopeServe, "", "store.redis"},
		{"a password", redis("addresses: [a:1], password_file: " + one), redis("addresses: [a:1], password_file: " + two + ", pool_size: 9"),
			ScopeServe, "store.redis.password_file", "store.redis.pool_size"},
		{"the password of another server", redis("addresses: [a:1], password_file: " + one), redis("addresses: [b:1], tls: {}, password_file: " + two),
			ScopeServe, "", "store.redis.addresses store.redis.password_file store.redis.tls"},
		{"a gateway", "", gateway("upstream: 'http://a'"), ScopeServe, "", "gateway"},
		{"its settings", gateway("upstream: 'http://a'"), gateway("upstream: 'http://a', name: n, public_url: 'http://p', service: 'http://s'"),
			ScopeServe, "gateway.public_url", "gateway.name"},
		{"on its own", gateway("upstream: 'http://a'"), gateway("upstream: 'http://a', policy: strict, service: 'http://s'") + "listen: 127.0.0.1:1\ndata_dir: d\n",
			ScopeGateway, "", "data_dir gateway.service"},
		{"TLS", gateway("upstream: 'https://a'"), gateway("upstream: 'https://a', upstream_tls: {server_name: n}"), ScopeServe, "gateway.upstream_tls", ""},
		{"TLS of another homeserver", gateway("upstream: 'http://a'"), gateway("upstream: 'https://a', upstream_tls: {}"),
			ScopeGateway, "", "gateway.upstream gateway.upstream_tls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := testkit.NewFolder(t)
			o := &config.Options{File: f.Write("c.yaml", "%s", tt.before)}
			cfg, err := setup.LoadConfig(o)
			testkit.NoError(t, err)
			before := New(cfg, tt.in)
			f.Write("c.yaml", "%s", tt.after)
			after, d, err := Again(o, before, tt.in)
			testkit.NoError(t, err)
			if got := strings.Join(d.changed, " "); got != tt.changed {
				t.Errorf("changed: %s, want %s", got, tt.changed)
			}
			if got := strings.Join(d.Restart, " "); got != tt.restart {
				t.Errorf("needs a restart: %s, want %s", got, tt.restart)
			}
			for _, key := range config.Changes(cfg, after.Config) {
				if tt.in(key) && !slices.Contains(d.changed, key) {
					t.Errorf("%s is in force", key)
				}
			}
			if _, again, err := Again(o, after, tt.in); err != nil || len(again.changed) > 0 || strings.Join(again.Restart, " ") != tt.restart {
				t.Errorf("once more: %v, %v", again, err)
			}
		})
	}
}
