// Package reload reads a configuration again and finds the keys whose values changed:
// those in force at once, and those in force after a restart.
package reload

import (
	"crypto/sha256"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
)

// Reading is a configuration with the digests of the files that it names.
type Reading struct {
	Config *config.Config
	files  []fileSum
}

// fileSum is a file with the SHA-256 of its contents; zero: it could not be read.
type fileSum struct {
	config.File
	sum [sha256.Size]byte
}

// scope selects the keys that a command reads.
type scope func(key string) bool

// ScopeServe selects the keys that "discharger serve" reads.
func ScopeServe(key string) bool { return key != "gateway.service" }

// ScopeGateway selects the keys that "discharger gateway" reads.
func ScopeGateway(key string) bool {
	switch key {
	case "gateway.policy", "gateway.name":
		return false
	case "gateway", "admin_listen", "admin_public", "data_dir", "keys.group_readable", "trusted_proxies", "shutdown_timeout", "log.level", "log.format":
		return true
	}
	return under(key, "gateway") && !under(key, "gateway.security_events")
}

// New reads the files that a configuration names.
func New(cfg *config.Config, in scope) *Reading {
	r := &Reading{Config: cfg}
	for _, f := range cfg.Files() {
		if !in(f.Key) {
			continue
		}
		read := fileSum{File: f}
		if data, err := os.ReadFile(f.Path); err == nil {
			read.sum = sha256.Sum256(data)
		}
		r.files = append(r.files, read)
	}
	return r
}

// Difference lists the keys of the configuration whose values a reload found
// changed. A file whose contents changed counts under the key that names it.
type Difference struct {
	changed []string // in force from now on
	Restart []string // in force after a restart
}

// Again loads the configuration again. Keys that take a restart keep the values of
// before, the reading in force.
func Again(o *config.Options, before *Reading, in scope) (*Reading, Difference, error) {
	cfg, err := setup.LoadConfig(o)
	if err != nil {
		return nil, Difference{}, err
	}
	d := Difference{changed: []string{}, Restart: []string{}} // in JSON an empty list, not null
	for _, key := range config.Changes(before.Config, cfg) {
		switch {
		case fixed(key):
			d.Restart = append(d.Restart, key)
		case in(key):
			d.changed = append(d.changed, key)
		}
	}
	d.keepTogether()
	cfg.Keep(before.Config, d.Restart)
	d.Restart = slices.DeleteFunc(d.Restart, func(key string) bool { return !in(key) })
	after := New(cfg, in)
	for _, f := range after.files {
		if before.differs(f) && !slices.Contains(d.changed, f.Key) {
			d.changed = append(d.changed, f.Key)
		}
	}
	return after, d, nil
}

// differs reports whether the contents of a file have changed.
func (r *Reading) differs(f fileSum) bool {
	return slices.ContainsFunc(r.files, func(was fileSum) bool { return was.File == f.File && was.sum != f.sum })
}

// keepTogether moves passwords and certificates to restart if they are for a server
// that the process does not use before a restart.
func (d *Difference) keepTogether() {
	for _, server := range []struct{ is, has []string }{
		{[]string{"store.redis.addresses", "store.redis.master_name", "store.redis.cluster"}, redisAccess()},
		{[]string{"gateway.upstream"}, []string{"gateway.upstream_tls"}},
	} {
		if !slices.ContainsFunc(d.Restart, func(key string) bool { return slices.Contains(server.is, key) }) {
			continue
		}
		d.changed = slices.DeleteFunc(d.changed, func(key string) bool {
			waits := underAny(key, server.has)
			if waits {
				d.Restart = append(d.Restart, key)
			}
			return waits
		})
	}
}

// fixed reports whether a key counts at the start only. Sections of the store and
// of the gateway have both kinds, and a new key there is fixed until it is listed.
func fixed(key string) bool {
	switch {
	case slices.Contains([]string{"listen", "admin_listen", "data_dir", "log.format", "feed.events", "store", "gateway"}, key):
		return true
	case under(key, "store"):
		return !underAny(key, redisAccess())
	case under(key, "gateway"):
		return !underAny(key, []string{
			"gateway.upstream_tls", "gateway.public_url", "gateway.keys_file", "gateway.policy", "gateway.security_events",
			"gateway.legacy", "gateway.legacy_until", "gateway.once_new_always_new", "gateway.foreign_tokens_sha256",
			"gateway.reconcile_interval", "gateway.forget_after",
		})
	}
	return false
}

// redisAccess returns the keys of Redis that take no restart: users, passwords and
// certificates.
func redisAccess() []string {
	return []string{
		"store.redis.username", "store.redis.password_file", "store.redis.password_env", "store.redis.sentinel_username",
		"store.redis.sentinel_password_file", "store.redis.sentinel_password_env", "store.redis.tls",
	}
}

func underAny(key string, sections []string) bool {
	return slices.ContainsFunc(sections, func(section string) bool { return under(key, section) })
}

// under reports whether a key is a section, or in it.
func under(key, section string) bool {
	rest, ok := strings.CutPrefix(key, section)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// Attrs returns the attributes of a reload's log line: the files that were read,
// and the keys that changed.
func (d Difference) Attrs(o *config.Options, r *Reading) []any {
	var read []string
	if o.File != "" {
		read = append(read, o.File)
	}
	for _, f := range r.files {
		if f.sum != ([sha256.Size]byte{}) && !slices.Contains(read, f.Path) {
			read = append(read, f.Path)
		}
	}
	return []any{slog.Any("read", read), slog.Any("changed", d.changed), slog.Any("needs_restart", d.Restart)}
}
