package config

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/discharger/discharger/discharger/caveat"
)

// SecurityEvents is a receiver of security event tokens, which is told what is
// revoked of a homeserver's sessions.
type SecurityEvents struct {
	URL      string `yaml:"url"`      // where they are pushed to
	Audience string `yaml:"audience"` // who they are for

	AuthorizationFile string        `yaml:"authorization_file"` // of the Authorization header; empty: there is none
	Authorization     caveat.Secret `yaml:"-"`                  // what is in it
}

// receivers calls do for each receiver, with its key.
func (c *Config) receivers(do func(key string, e *SecurityEvents)) {
	for i := range c.Homeservers {
		if e := c.Homeservers[i].SecurityEvents; e != nil {
			do(fmt.Sprintf("homeservers[%d].security_events.", i), e)
		}
	}
	if c.Gateway != nil && c.Gateway.SecurityEvents != nil {
		do("gateway.security_events.", c.Gateway.SecurityEvents)
	}
}

// HasReceivers reports whether anybody is to be sent security events.
func (c *Config) HasReceivers() (any bool) {
	c.receivers(func(string, *SecurityEvents) { any = true })
	return any
}

// maxAudience bounds the name of an audience, in bytes.
const maxAudience = 1024

func (r *report) validateReceivers(c *Config) {
	c.receivers(func(key string, e *SecurityEvents) {
		if e.URL == "" {
			r.at(key+"url", "is missing: where events are sent to, such as https://receiver.example/events")
		} else if u, err := url.Parse(e.URL); err != nil || u.Host == "" || u.User != nil || u.Fragment != "" ||
			u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
			// It is not repeated: a receiver's secret may be in it.
			r.at(key+"url", "want https and a host, such as https://receiver.example/events, with no user in it; "+
				"http is for loopback addresses only")
		}
		if e.Audience == "" || len(e.Audience) > maxAudience {
			r.at(key+"audience", "want the audience that the receiver expects, such as https://receiver.example")
		}
		if c.PublicURL == "" {
			r.at("public_url", "is missing: it says in security events who they are from, and where the keys are")
		}
	})
}

// receiverSecrets reads what is sent to receivers as Authorization.
func (d *decoder) receiverSecrets(cfg *Config) {
	cfg.receivers(func(key string, e *SecurityEvents) {
		e.Authorization = d.secret(key+"authorization", e.AuthorizationFile, "", nil)
		if strings.ContainsFunc(string(e.Authorization), func(c rune) bool { return c < ' ' || c > '~' }) {
			d.at(key+"authorization_file", "want one line of printable characters, such as Bearer and a token")
		}
	})
}
