package config

import (
	"fmt"
	"strings"

	"github.com/discharger/discharger/discharger/secret"
)

// SecurityEvents is a receiver of security event tokens, one for each revocation of
// a homeserver's sessions.
type SecurityEvents struct {
	URL      string `yaml:"url" hide:"true"` // to which tokens are pushed
	Audience string `yaml:"audience"`        // "aud" of the tokens

	AuthorizationFile string       `yaml:"authorization_file" file:"read"` // file of the Authorization header; empty: no header
	Authorization     secret.Bytes `yaml:"-"`                              // content of the file
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

// HasReceivers reports whether security events are sent.
func (c *Config) HasReceivers() (any bool) {
	c.receivers(func(string, *SecurityEvents) { any = true })
	return any
}

// maxAudience bounds the name of an audience, in bytes.
const maxAudience = 1024

func (d *decoder) validateReceivers(c *Config) {
	c.receivers(func(key string, e *SecurityEvents) {
		if u := webURL(e.URL); e.URL == "" {
			d.missing(key+"url", "write the URL of the receiver, such as https://receiver.example/events")
		} else if u == nil || u.Scheme != "https" && !loopback(u.Hostname()) {
			// The message does not contain the URL, which may hold a secret.
			d.at(key+"url", "want https and a host, such as https://receiver.example/events, with no user in it; "+
				"http is for loopback addresses only")
		}
		if e.Audience == "" {
			d.missing(key+"audience", "write the audience of the receiver, such as https://receiver.example")
		} else if len(e.Audience) > maxAudience {
			d.at(key+"audience", "want at most %d bytes, got %d", maxAudience, len(e.Audience))
		}
		if c.PublicURL == "" {
			d.missing("public_url", "it is the issuer in security events, and locates its keys")
		}
	})
}

// receiverSecrets reads the Authorization headers of receivers.
func (d *decoder) receiverSecrets(cfg *Config) {
	cfg.receivers(func(key string, e *SecurityEvents) {
		e.Authorization = d.secret(key+"authorization", e.AuthorizationFile, "", nil)
		if strings.ContainsFunc(string(e.Authorization), func(c rune) bool { return c < ' ' || c > '~' }) {
			d.at(key+"authorization_file", "want one line of printable characters, such as Bearer and a token")
		}
	})
}
