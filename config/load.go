package config

import (
	"fmt"
	"os"
	"strings"

	"github.com/discharger/discharger/discharger/secret"
)

// Options are the sources of a configuration.
type Options struct {
	File string // path of the file; empty: none

	// LookupEnv returns environment variables, as [os.LookupEnv] does; nil: there
	// are none.
	LookupEnv func(string) (string, bool)

	// Flags has values by key, such as "listen". They override all others. Every
	// key must be one of [Variables].
	Flags map[string]string
}

// Variable is an environment variable that sets a key.
type Variable struct {
	Name string // such as DISCHARGER_LISTEN
	Key  string // such as listen
}

// Variables returns the environment variables that set a key: settings that differ
// between machines. Lists are separated by commas. An empty variable counts as unset.
func Variables() []Variable {
	keys := []string{
		"listen", "admin_listen", "admin_public", "public_url", "data_dir", "keys.file",
		"store.redis.addresses", "store.redis.username", "store.redis.password_file",
		"log.level", "log.format",
	}
	vars := make([]Variable, len(keys))
	for i, key := range keys {
		name := strings.ReplaceAll(strings.TrimPrefix(key, "store."), ".", "_")
		vars[i] = Variable{Name: "DISCHARGER_" + strings.ToUpper(name), Key: key}
	}
	return vars
}

// Load reads and checks the configuration and the secrets that it names. Mistakes are
// reported as [yamlfile.Problems]; any other error is one of reading the file.
func Load(o Options) (*Config, error) {
	var data []byte
	if o.File != "" {
		var err error
		if data, err = os.ReadFile(o.File); err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
	}
	return parse(data, o)
}

// parse is [Load] for a file that has been read.
func parse(data []byte, o Options) (*Config, error) {
	d := newDecoder(o.File, data)
	cfg := Default()
	if !d.document(cfg) {
		return nil, d.err() // further problems would be consequences
	}
	lookup := o.LookupEnv
	if lookup == nil {
		lookup = func(string) (string, bool) { return "", false }
	}
	for _, v := range Variables() {
		if text, ok := lookup(v.Name); ok && text != "" {
			d.set(cfg, v.Key, text, "$"+v.Name)
		}
		if text, ok := o.Flags[v.Key]; ok {
			d.set(cfg, v.Key, text, "--"+strings.ReplaceAll(v.Key, "_", "-"))
		}
	}
	d.validate(cfg)
	d.secrets(cfg, lookup)
	if err := d.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// secrets reads the secrets that the configuration names.
func (d *decoder) secrets(cfg *Config, lookup func(string) (string, bool)) {
	d.receiverSecrets(cfg)
	if g := cfg.Gateway; g != nil {
		d.tls("gateway.upstream_tls", g.UpstreamTLS)
	}
	r := cfg.Store.Redis
	if r == nil {
		return
	}
	const key = "store.redis."
	r.Password = d.secret(key+"password", r.PasswordFile, r.PasswordEnv, lookup)
	r.SentinelPassword = d.secret(key+"sentinel_password", r.SentinelPasswordFile, r.SentinelPasswordEnv, lookup)
	d.tls(key+"tls", r.TLS)
}

// tls checks the files of a connection.
func (d *decoder) tls(key string, t *TLS) {
	if t == nil {
		return
	}
	if _, err := t.Load(); err != nil {
		d.at(key, "%v", err)
	}
}

// secret reads one secret from a file or a variable. Without either it is nil.
func (d *decoder) secret(key, file, variable string, lookup func(string) (string, bool)) secret.Bytes {
	var text string
	switch {
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			d.at(key+"_file", "%v", err)
			return nil
		}
		key += "_file"
		text = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	case variable != "":
		key += "_env"
		text, _ = lookup(variable)
	default:
		return nil
	}
	switch text {
	case "":
		d.at(key, "secret is empty")
	case secret.Redacted:
		d.at(key, "secret is %s, which stands for the secret where it is printed", text)
	}
	return secret.Bytes(text)
}
