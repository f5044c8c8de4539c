package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/secret"
)

// write writes a file into a directory and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, other := write(t, dir, "old", "one\n"), write(t, dir, "new", "two\n")
	redis := func(more string) string { return "store: {redis: {addresses: [127.0.0.1:6379], " + more + "}}\n" }
	gateway := func(more string) string { return "gateway: {upstream: http://127.0.0.1:8008, " + more + "}\n" }
	for _, tt := range []struct {
		name, before, after string
		want                []string
	}{
		{"nothing", gateway("legacy: reject"), gateway("legacy: reject"), nil},
		{"a value and its default", "", "discharge: {ttl: 5m}\n", nil},
		{"values", "", "listen: 127.0.0.1:1\ndischarge: {ttl: 4m, grace: 1s}\n", []string{"listen", "discharge.ttl", "discharge.grace"}},
		{"a list", "", "trusted_proxies: [127.0.0.0/8]\n", []string{"trusted_proxies"}},
		{"a section", "", gateway("legacy: reject"), []string{"gateway"}},
		{"in a section", gateway("legacy: forward"), gateway("legacy: reject"), []string{"gateway.legacy"}},
		{"a time", gateway("legacy: upgrade, legacy_until: 2027-01-31T00:00:00Z"), gateway("legacy: upgrade, legacy_until: 2027-02-28T00:00:00Z"),
			[]string{"gateway.legacy_until"}},
		{"another file, with another secret", redis("password_file: " + old), redis("password_file: " + other), []string{"store.redis.password_file"}},
		{"a variable", redis("sentinel_password_env: A, master_name: m"), redis("sentinel_password_env: B, master_name: m"),
			[]string{"store.redis.sentinel_password_env"}},
		{"another source", redis("password_file: " + old), redis("password_env: B"),
			[]string{"store.redis.password_file", "store.redis.password_env"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			read := func(text string) *Config {
				c, err := parse([]byte(text), Options{LookupEnv: func(name string) (string, bool) {
					return map[string]string{"A": "one", "B": "two"}[name], true
				}})
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			if got := Changes(read(tt.before), read(tt.after)); !slices.Equal(got, tt.want) {
				t.Errorf("changed: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestKeep(t *testing.T) {
	t.Parallel()
	before, after := Default(), Default()
	before.Listen, before.Store.Redis = "127.0.0.1:1", &Redis{Addresses: []string{"a:1"}, DB: 1}
	after.Discharge.TTL, after.Store.Redis = time.Minute, &Redis{Addresses: []string{"b:1"}, DB: 2}
	after.Keep(before, []string{"listen", "store.redis.addresses"})
	if got, want := Changes(before, after), []string{"store.redis.db", "discharge.ttl"}; !slices.Equal(got, want) {
		t.Errorf("changed: %v, want %v", got, want)
	}
	after.Keep(before, Changes(before, after))
	after.Store.Redis.PasswordFile, after.Store.Redis.Password = "f", secret.Bytes("secret")
	after.Store.Redis.SentinelPassword = secret.Bytes("secret") // of the file that is named before, too
	after.Keep(before, Changes(before, after))
	if got := Changes(before, after); len(got) > 0 || len(after.Store.Redis.Password) > 0 {
		t.Errorf("changed: %v", got)
	}
	after.Store.Redis = nil
	after.Keep(before, Changes(before, after))
	if got := Changes(before, after); len(got) > 0 {
		t.Errorf("changed: %v", got)
	}
}

// Every key of a file that is read is in the list.
func TestFiles(t *testing.T) {
	t.Parallel()
	events := &SecurityEvents{AuthorizationFile: "f"}
	secure := &TLS{CAFile: "f", CertFile: "f", KeyFile: "f"}
	c := &Config{
		Policy:      Policy{Files: []string{"f"}, Shadow: "f", Schema: "f"},
		Store:       Store{Redis: &Redis{PasswordFile: "f", SentinelPasswordFile: "f", TLS: secure}},
		Homeservers: []Homeserver{{SecurityEvents: events}},
		Gateway:     &Gateway{UpstreamTLS: secure, SecurityEvents: events},
	}
	listed := make(map[string]bool)
	for _, f := range c.Files() {
		listed[strings.NewReplacer("[0]", "").Replace(f.Key)] = true
	}
	for _, key := range paths() {
		last := key[strings.LastIndexByte(key, '.')+1:]
		file := last == "file" || last == "files" || strings.HasSuffix(last, "_file") || key == "policy.shadow" || key == "policy.schema"
		if file != listed[key] {
			t.Errorf("%s is listed: %t, want %t", key, listed[key], file)
		}
	}
}
