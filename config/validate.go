package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/discharger/discharger/discharger/caveat"
)

// validate reports everything about a decoded configuration that cannot work.
func (r *report) validate(c *Config) {
	r.validateListeners(c)
	r.validateLifetimes(c)
	r.validateFeed(c.Feed)
	r.validateLimits(c.Limits)
	r.validateHomeservers(c.Homeservers)
	r.validatePolicy(&c.Policy)
	r.validateClients(c)
	r.validateStore(&c.Store)
	r.validateGateway(c)
	r.validateReceivers(c)
	if c.DataDir == "" {
		r.at("data_dir", "is empty")
	}
	if c.Log.Format != LogText && c.Log.Format != LogJSON {
		r.at("log.format", "want text or json, got %q", cut(string(c.Log.Format)))
	}
}

func (r *report) validateListeners(c *Config) {
	r.address("listen", c.Listen, true)
	r.address("admin_listen", c.AdminListen, true)
	if c.Listen == c.AdminListen && !strings.HasSuffix(c.Listen, ":0") {
		r.at("admin_listen", "is the same as listen")
	}
	if host, _, err := net.SplitHostPort(c.AdminListen); err == nil && !c.AdminPublic && !loopback(host) {
		r.at("admin_listen", "%s is not a loopback address, and whoever reaches it can read the metrics; "+
			"set admin_public: true if that is meant", c.AdminListen)
	}
	if c.PublicURL == "" {
		return
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" {
		r.at("public_url", "want a URL such as https://discharger.example.org, got %q", cut(c.PublicURL))
	}
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// address checks host:port. To listen, the host may be empty and the port 0.
func (r *report) address(key, text string, listen bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		r.at(key, "want host:port, got %q", cut(text))
		return
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0 && !listen:
		r.at(key, "%q is not a port", cut(port))
	case host == "" && !listen:
		r.at(key, "want host:port, got %q", cut(text))
	}
}

func (r *report) validateLifetimes(c *Config) {
	for _, d := range []struct {
		key   string
		value time.Duration
	}{
		{"discharge.ttl", c.Discharge.TTL},
		{"discharge.max_ttl", c.Discharge.MaxTTL},
		{"discharge.activation_window", c.Discharge.ActivationWindow},
		{"discharge.grace", c.Discharge.Grace},
		{"discharge.clock_skew", c.Discharge.ClockSkew},
		{"request_timeout", c.RequestTimeout},
		{"shutdown_timeout", c.ShutdownTimeout},
	} {
		if d.value <= 0 {
			r.at(d.key, "want more than 0, got %s", d.value)
		}
	}
	if c.Discharge.MaxTTL < c.Discharge.TTL {
		r.at("discharge.max_ttl", "%s is shorter than discharge.ttl, %s", c.Discharge.MaxTTL, c.Discharge.TTL)
	}
	r.sessionLimit("session.idle", c.Session.Idle, c.Discharge.TTL)
	r.sessionLimit("session.absolute", c.Session.Absolute, c.Discharge.TTL)
	if c.Session.RememberEnded < time.Hour {
		r.at("session.remember_ended", "want 1h or more, got %s", c.Session.RememberEnded)
	}
}

func (r *report) validateFeed(f Feed) {
	if f.Heartbeat < time.Second || f.Heartbeat > 10*time.Minute {
		r.at("feed.heartbeat", "want 1s to 10m, got %s", f.Heartbeat)
	}
	if f.Subscribers < 1 {
		r.at("feed.subscribers", "want 1 or more, got %d", f.Subscribers)
	}
	if f.Events < 1000 {
		r.at("feed.events", "want 1000 or more, got %d", f.Events)
	}
}

func (r *report) validateLimits(l Limits) {
	if l.InFlight < 16 || l.InFlight > 1_000_000 {
		r.at("limits.in_flight", "want 16 to 1000000, got %d", l.InFlight)
	}
	if l.PerAddress < 1 {
		r.at("limits.per_address", "want 1 or more, got %d", l.PerAddress)
	}
}

// sessionLimit checks a limit that is zero for none, and else has to leave time
// for a discharge to run out and be renewed.
func (r *report) sessionLimit(key string, limit, ttl time.Duration) {
	switch {
	case limit < 0:
		r.at(key, "want 0s, for no limit, or more; got %s", limit)
	case limit > 0 && limit <= ttl:
		r.at(key, "%s is not longer than discharge.ttl, %s: no session would last to its first refresh", limit, ttl)
	}
}

// Bounds of names, in bytes.
const (
	maxName   = 255 // of a homeserver
	maxPolicy = 64  // of a policy, as in a condition
)

func (r *report) validateHomeservers(all []Homeserver) {
	names := make(map[string]int)
	keys := make(map[caveat.PublicKey]string)
	digests := make(map[Digest]string)
	for i, h := range all {
		at := func(key string) string { return fmt.Sprintf("homeservers[%d].%s", i, key) }
		if msg := badName(h.Name); msg != "" {
			r.at(at("name"), "%s", msg)
		} else if first, ok := names[h.Name]; ok {
			r.at(at("name"), "%q is the name of homeservers[%d] too", h.Name, first)
		} else {
			names[h.Name] = i
		}
		if h.PublicKey == (caveat.PublicKey{}) {
			r.at(at("public_key"), "is missing; discharger keys new --kind homeserver makes one")
		} else {
			r.publicKey(at("public_key"), h.PublicKey, keys)
		}
		for j, key := range h.PreviousKeys {
			r.publicKey(at(fmt.Sprintf("previous_public_keys[%d]", j)), key, keys)
		}
		for j, key := range h.RetiredKeys {
			r.publicKey(at(fmt.Sprintf("retired_public_keys[%d]", j)), key, keys)
		}
		for j, d := range h.APIKeys {
			key := at(fmt.Sprintf("api_key_sha256[%d]", j))
			if first, ok := digests[d]; ok {
				r.at(key, "is %s too", first)
			}
			digests[d] = key
		}
		r.policyName(at("policy"), h.Policy)
	}
}

func (r *report) policyName(key, name string) {
	if len(name) > maxPolicy || strings.ContainsFunc(name, notInPolicy) {
		r.at(key, "want up to %d of a-z, 0-9, _, - and ., got %q", maxPolicy, cut(name))
	}
}

// validatePolicy checks that every file is named, and named once. Two keys with
// one file are a slip: one of them was meant to be another.
func (r *report) validatePolicy(p *Policy) {
	first := make(map[string]string)
	check := func(key, path string) {
		if path == "" {
			return
		}
		path = filepath.Clean(path)
		if other, ok := first[path]; ok {
			r.at(key, "is %s too", other)
			return
		}
		first[path] = key
	}
	for i, path := range p.Files {
		key := fmt.Sprintf("policy.files[%d]", i)
		if path == "" {
			r.at(key, "is empty")
		}
		check(key, path)
	}
	check("policy.shadow", p.Shadow)
	check("policy.audit", p.Audit)
	check("policy.schema", p.Schema)
}

func badName(name string) string {
	switch {
	case name == "":
		return "is missing"
	case len(name) > maxName:
		return fmt.Sprintf("is longer than %d bytes", maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Sprintf("%q has a character that a name cannot have", cut(name))
	}
	return ""
}

func notInPolicy(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.'
}

func (r *report) publicKey(key string, k caveat.PublicKey, seen map[caveat.PublicKey]string) {
	if err := caveat.CheckPublicKey(k); err != nil {
		r.at(key, "%v", err)
	} else if first, ok := seen[k]; ok {
		r.at(key, "is %s too", first)
	}
	seen[k] = key
}

func (r *report) validateClients(c *Config) {
	for i, p := range c.TrustedProxies {
		if p.IsValid() && p.Bits() == 0 {
			r.at(fmt.Sprintf("trusted_proxies[%d]", i), "%s is everybody: any client could claim any address", p)
		}
	}
	if len(c.CORSOrigins) == 0 {
		r.at("cors_origins", "is empty; name the origins, or leave the key out to allow any")
	}
	for i, origin := range c.CORSOrigins {
		u, err := url.Parse(origin)
		if origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin) {
			r.at(fmt.Sprintf("cors_origins[%d]", i), "want \"*\" or an origin such as https://app.example.org, got %q", cut(origin))
		}
	}
}
