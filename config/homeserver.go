package config

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/caveat"
)

// Homeserver is one registered homeserver.
type Homeserver struct {
	Name         string             `yaml:"name"`                 // in logs and metrics, and in the key of every session: it cannot change
	PublicKey    caveat.PublicKey   `yaml:"public_key"`           // X25519, base64
	PreviousKeys []caveat.PublicKey `yaml:"previous_public_keys"` // accepted too, during a rotation
	RetiredKeys  []caveat.PublicKey `yaml:"retired_public_keys"`  // retired: sessions that depend on one are over
	APIKeys      []Digest           `yaml:"api_key_sha256"`       // digests of its API keys; none: no access to the API
	Policy       string             `yaml:"policy"`               // of sessions that name none; empty: default

	SecurityEvents *SecurityEvents `yaml:"security_events"` // receiver of revocations; nil: none
}

// Bounds of names, in bytes.
const (
	maxName   = 255 // of a homeserver
	maxPolicy = 64  // of a policy, as in a condition
)

func (d *decoder) validateHomeservers(all []Homeserver) {
	names := make(map[string]int)
	keys := make(map[caveat.PublicKey]string)
	digests := make(map[Digest]string)
	for i, h := range all {
		at := func(key string) string { return fmt.Sprintf("homeservers[%d].%s", i, key) }
		d.name(at("name"), h.Name)
		if first, ok := names[h.Name]; ok {
			d.at(at("name"), "%q is the name of homeservers[%d] too", h.Name, first)
		} else if h.Name != "" {
			names[h.Name] = i
		}
		if h.PublicKey == (caveat.PublicKey{}) {
			d.missing(at("public_key"), "discharger keys new --kind homeserver makes one")
		} else {
			d.publicKey(at("public_key"), h.PublicKey, keys)
		}
		for j, key := range h.PreviousKeys {
			d.publicKey(at(fmt.Sprintf("previous_public_keys[%d]", j)), key, keys)
		}
		for j, key := range h.RetiredKeys {
			d.publicKey(at(fmt.Sprintf("retired_public_keys[%d]", j)), key, keys)
		}
		for j, digest := range h.APIKeys {
			key := at(fmt.Sprintf("api_key_sha256[%d]", j))
			if first, ok := digests[digest]; ok {
				d.at(key, "is %s too", first)
			}
			digests[digest] = key
		}
		d.policyName(at("policy"), h.Policy)
	}
}

func (d *decoder) policyName(key, name string) {
	if len(name) > maxPolicy || strings.ContainsFunc(name, notInPolicy) {
		d.at(key, "want up to %d of a-z, 0-9, _, - and ., got %q", maxPolicy, yamlfile.Shorten(name))
	}
}

// name checks the name of a homeserver.
func (d *decoder) name(key, name string) {
	switch {
	case name == "":
		d.missing(key, "")
	case len(name) > maxName:
		d.at(key, "want at most %d bytes, got %d", maxName, len(name))
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		d.at(key, "%q has a character that a name cannot have", yamlfile.Shorten(name))
	}
}

func notInPolicy(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.'
}

func (d *decoder) publicKey(key string, k caveat.PublicKey, seen map[caveat.PublicKey]string) {
	if err := caveat.CheckPublicKey(k); err != nil {
		d.at(key, "%v", err)
	} else if first, ok := seen[k]; ok {
		d.at(key, "is %s too", first)
	}
	seen[k] = key
}
