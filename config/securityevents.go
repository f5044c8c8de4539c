package config

import (
	"fmt"
	"strings"

	"github.com/discharger/discharger/discharger/caveat"
)

// SecurityEvents is a receiver of security event tokens, which is told what is
// revoked of a homeserver's sessions.
type SecurityEvents struct {
	URL      string `yaml:"url" hide:"true"` // where they are pushed to
	Audience string `yaml:"audience"`        // who they are for

	AuthorizationFile string        `yaml:"authorization_file" file:"read"` // of the Authorization header; empty: there is none
	Authorization     caveat.Secret `yaml:"-"`                              // what is in it
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

func (d *decoder) validateReceivers(c *Config) {
	c.receivers(func(key string, e *SecurityEvents) {
		if u := webURL(e.URL); e.URL == "" {
			d.missing(key+"url", "; write where events are sent to, such as https://receiver.example/events")
		} else if u == nil || u.Scheme != "https" && !loopback(u.Hostname()) {
			// The URL is not repeated: it may hold a secret of the receiver.
			d.at(key+"url", "want https and a host, such as https://receiver.example/events, with no user in it; "+
				"http is for loopback addresses only")
		}
		if e.Audience == "" || len(e.Audience) > maxAudience {
			d.at(key+"audience", "want the audience that the receiver expects, such as https://receiver.example")
		}
		if c.PublicURL == "" {
			d.missing("public_url", "; it is the issuer in security events, and locates its keys")
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
