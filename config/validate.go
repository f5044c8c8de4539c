package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
)

// validate reports the problems of a decoded configuration.
func (d *decoder) validate(c *Config) {
	d.bounds(c)
	d.validateListeners(c)
	d.validateLifetimes(c)
	d.validateHomeservers(c.Homeservers)
	d.validatePolicy(&c.Policy)
	d.validateClients(c)
	d.validateStore(&c.Store)
	d.validateGateway(c)
	d.validateReceivers(c)
	if c.DataDir == "" {
		d.at("data_dir", "is empty")
	}
}

func (d *decoder) validateListeners(c *Config) {
	d.address("listen", c.Listen, true)
	d.address("admin_listen", c.AdminListen, true)
	if c.Listen == c.AdminListen && !strings.HasSuffix(c.Listen, ":0") {
		d.at("admin_listen", "is the same as listen")
	}
	if host, _, err := net.SplitHostPort(c.AdminListen); err == nil && !c.AdminPublic && !loopback(host) {
		d.at("admin_listen", "%s is not a loopback address, and its clients can read the metrics; "+
			"set admin_public: true to allow that", c.AdminListen)
	}
	if c.PublicURL == "" {
		return
	}
	if u := webURL(c.PublicURL); u == nil || u.RawQuery != "" {
		d.at("public_url", "want a URL such as https://discharger.example.org, got %q", yamlfile.Shorten(c.PublicURL))
	}
}

// webURL parses a URL of http or https with a host and without a user or a fragment.
// It returns nil for any other.
func webURL(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil
	}
	return u
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// address checks host:port. In an address to listen at, the host may be empty and
// the port 0.
func (d *decoder) address(key, text string, listen bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		d.at(key, "want host:port, got %q", yamlfile.Shorten(text))
		return
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0 && !listen:
		d.at(key, "%q is not a port", yamlfile.Shorten(port))
	case host == "" && !listen:
		d.at(key, "want host:port, got %q", yamlfile.Shorten(text))
	}
}

// bounds reports numbers and durations beyond the min and max of their fields.
func (d *decoder) bounds(c *Config) {
	walk("", reflect.ValueOf(c).Elem(), reflect.StructField{}, func(key string, v reflect.Value, f reflect.StructField) {
		least, most := f.Tag.Get("min"), f.Tag.Get("max")
		switch {
		case least == "" || v.Int() >= bound(least) && (most == "" || v.Int() <= bound(most)):
		case most != "":
			d.at(key, "want %s to %s, got %v", least, most, v)
		case least == "1ns":
			d.at(key, "want more than 0, got %v", v)
		default:
			d.at(key, "want %s or more, got %v", least, v)
		}
	})
}

// bound parses a min or max: a number, or a duration.
func bound(text string) int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	duration, _ := time.ParseDuration(text) // a test checks all of them
	return int64(duration)
}

func (d *decoder) validateLifetimes(c *Config) {
	if c.Discharge.MaxTTL < c.Discharge.TTL {
		d.at("discharge.max_ttl", "%s is shorter than discharge.ttl, %s", c.Discharge.MaxTTL, c.Discharge.TTL)
	}
	d.sessionLimit("session.idle", c.Session.Idle, c.Discharge.TTL)
	d.sessionLimit("session.absolute", c.Session.Absolute, c.Discharge.TTL)
}

// sessionLimit checks a limit, 0 for none, which has to be longer than a discharge.
func (d *decoder) sessionLimit(key string, limit, ttl time.Duration) {
	switch {
	case limit < 0:
		d.at(key, "want 0s or more, got %s; 0s is no limit", limit)
	case limit > 0 && limit <= ttl:
		d.at(key, "%s is not longer than discharge.ttl, %s: no session would last to its first refresh", limit, ttl)
	}
}

// validatePolicy checks that no path is empty or a duplicate.
func (d *decoder) validatePolicy(p *Policy) {
	first := make(map[string]string)
	check := func(key, path string) {
		if path == "" {
			return
		}
		path = filepath.Clean(path)
		if other, ok := first[path]; ok {
			d.at(key, "is %s too", other)
			return
		}
		first[path] = key
	}
	for i, path := range p.Files {
		key := fmt.Sprintf("policy.files[%d]", i)
		if path == "" {
			d.at(key, "is empty")
		}
		check(key, path)
	}
	check("policy.shadow", p.Shadow)
	check("policy.audit", p.Audit)
	check("policy.schema", p.Schema)
}

func (d *decoder) validateClients(c *Config) {
	for i, p := range c.TrustedProxies {
		if p.IsValid() && p.Bits() == 0 {
			d.at(fmt.Sprintf("trusted_proxies[%d]", i), "%s contains every address: any client could claim any other", p)
		}
	}
	if len(c.CORSOrigins) == 0 {
		d.at("cors_origins", "is empty; name the origins, or leave the key out to allow any")
	}
	for i, origin := range c.CORSOrigins {
		u, err := url.Parse(origin)
		if origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != origin) {
			d.at(fmt.Sprintf("cors_origins[%d]", i), "want \"*\" or an origin such as https://app.example.org, got %q", yamlfile.Shorten(origin))
		}
	}
}
