package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
)

const key1 = "8PCmUSzkhPMjqFAMbHMvVtB9FxWJXHyUZ3mTQdiuqE8="

func TestParse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`
listen: :9000
public_url: https://discharger.example.org
store:
  redis:
    addresses: [10.0.0.1:6379, 10.0.0.2:6379]
    master_name: main
    password_file: %s
    sentinel_password_env: SENTINEL
    tls: {}
    durability: replica
homeservers:
  - name: example.org
    public_key: %s
    api_key_sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    policy: strict
policy: {files: rules.yaml, shadow: next.yaml, audit: audit.ndjson, schema: caveats.yaml}
discharge: {ttl: 90s}
session: {idle: 0s, absolute: 2160h, remember_ended: 480h}
trusted_proxies: [10.0.0.0/8, "::1"]
cors_origins: https://app.example.org
log: {level: warn, format: json}
`, password, key1)
	cfg, err := parse([]byte(text), Options{LookupEnv: func(name string) (string, bool) {
		return "battery staple", name == "SENTINEL"
	}})
	if err != nil {
		t.Fatal(err)
	}
	redis := cfg.Store.Redis
	h := cfg.Homeservers[0]
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"listen", cfg.Listen, ":9000"},
		{"admin_listen", cfg.AdminListen, "127.0.0.1:8091"},
		{"policy files", fmt.Sprint(cfg.Policy.Files), "[rules.yaml]"},
		{"shadow", cfg.Policy.Shadow, "next.yaml"},
		{"audit", cfg.Policy.Audit, "audit.ndjson"},
		{"schema", cfg.Policy.Schema, "caveats.yaml"},
		{"ttl", cfg.Discharge.TTL, 90 * time.Second},
		{"max_ttl", cfg.Discharge.MaxTTL, time.Hour},
		{"idle", cfg.Session.Idle, time.Duration(0)},
		{"absolute", cfg.Session.Absolute, 90 * 24 * time.Hour},
		{"remember_ended", cfg.Session.RememberEnded, 20 * 24 * time.Hour},
		{"second address", redis.Addresses[1], "10.0.0.2:6379"},
		{"password", string(redis.Password), "correct horse"},
		{"sentinel password", string(redis.SentinelPassword), "battery staple"},
		{"tls", redis.TLS != nil, true},
		{"read timeout", redis.Timeouts.Read, 500 * time.Millisecond},
		{"durability", redis.Durability, DurableReplica},
		{"homeserver", h.Name, "example.org"},
		{"public key", h.PublicKey.String(), key1},
		{"api keys", len(h.APIKeys), 1},
		{"first proxy", cfg.TrustedProxies[0], netip.MustParsePrefix("10.0.0.0/8")},
		{"second proxy", cfg.TrustedProxies[1], netip.MustParsePrefix("::1/128")},
		{"origin", cfg.CORSOrigins[0], "https://app.example.org"},
		{"level", cfg.Log.Level, slog.LevelWarn},
		{"format", cfg.Log.Format, LogJSON},
		{"key file", cfg.KeyFile(), filepath.Join("discharger-data", "keys.json")},
	} {
		if c.got != c.want {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
	for _, s := range []string{fmt.Sprintf("%+v", redis), fmt.Sprintf("%#v", redis)} {
		if strings.Contains(s, "horse") || strings.Contains(s, "staple") {
			t.Errorf("prints a secret: %s", s)
		}
	}
}

func TestParseNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n", "---\n", "{}"} {
		if _, err := parse([]byte(text), Options{File: "empty.yaml"}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	env := map[string]string{
		"DISCHARGER_LISTEN":          "127.0.0.1:2",
		"DISCHARGER_ADMIN_LISTEN":    "127.0.0.1:3",
		"DISCHARGER_DATA_DIR":        "",
		"DISCHARGER_REDIS_ADDRESSES": "a:1, b:2",
		"DISCHARGER_REDIS_USERNAME":  "123",
		"DISCHARGER_LOG_LEVEL":       "DEBUG",
	}
	cfg, err := parse([]byte("listen: 127.0.0.1:1\ndata_dir: /data\nstore: {redis: {addresses: c:3, cluster: true}}"), Options{
		File:      "f.yaml",
		LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Flags:     map[string]string{"admin_listen": "127.0.0.1:4"},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(cfg.Listen, cfg.AdminListen, cfg.DataDir, cfg.Store.Redis.Addresses, cfg.Store.Redis.Username, cfg.Log.Level)
	want := fmt.Sprint("127.0.0.1:2", "127.0.0.1:4", "/data", []string{"a:1", "b:2"}, "123", slog.LevelDebug)
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Without Redis in the file, the variable alone chooses it.
func TestRedisFromEnvironment(t *testing.T) {
	t.Parallel()
	cfg, err := parse(nil, Options{LookupEnv: func(name string) (string, bool) {
		return "redis:6379", name == "DISCHARGER_REDIS_ADDRESSES"
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r := cfg.Store.Redis; r == nil || r.Addresses[0] != "redis:6379" || r.Timeouts.Dial != 500*time.Millisecond || r.Durability != DurablePrimary {
		t.Errorf("redis is %+v", r)
	}
}

func TestVariablesNameKeys(t *testing.T) {
	t.Parallel()
	for _, v := range Variables() {
		d := newDecoder("", nil)
		cfg := Default()
		d.set(cfg, v.Key, "127.0.0.1:1", "$"+v.Name)
		if want, ok := map[string]string{
			"log.level":    "$DISCHARGER_LOG_LEVEL: log.level: want debug",
			"log.format":   "$DISCHARGER_LOG_FORMAT: log.format: want text or json",
			"admin_public": "$DISCHARGER_ADMIN_PUBLIC: admin_public: want true or false",
		}[v.Key]; ok {
			if err := d.err(); err == nil || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("problems %v", err)
			}
			continue
		}
		if err := d.err(); err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"unknown key", "listne: :1", `f.yaml:1:1: key "listne" is unknown (did you mean listen?)`},
		{"nested", "discharge:\n  tll: 5m", `f.yaml:2:3: discharge: key "tll" is unknown (did you mean ttl?)`},
		{"elsewhere", "grace: 5s", `f.yaml:1:1: key "grace" is unknown (did you mean discharge.grace?)`},
		{"no idea", "xyzzy: 1", `f.yaml:1:1: key "xyzzy" is unknown`},
		{"swapped", "session: {ilde: 1h}", `f.yaml:1:11: session: key "ilde" is unknown (did you mean idle?)`},
		{"password", "store: {redis: {password: hunter2, addresses: a:1}}", `f.yaml:1:17: store.redis: key "password" is unknown (did you mean password_env?)`},
		{"internal name", "store: {redis: {\"-\": hunter2, addresses: a:1}}", `f.yaml:1:17: store.redis: key "-" is unknown`},
		{"duplicate", "listen: :1\nlisten: :2", `f.yaml:2:1: key "listen" is a duplicate; the first is in line 1`},
		{"number for text", "data_dir: 1", `f.yaml:1:11: data_dir: want a string, got 1; quote it if it is one`},
		{"text for bool", "admin_public: yes", `f.yaml:1:15: admin_public: want true or false, got "yes"`},
		{"text for number", "store: {redis: {addresses: a:1, db: zero}}", `f.yaml:1:37: store.redis.db: want a whole number, got "zero"`},
		{"duration without unit", "discharge: {ttl: 5}", `f.yaml:1:18: discharge.ttl: want a duration such as 90s, 5m, 12h or 30d, got 5; write 5s for seconds`},
		{"list for duration", "discharge: {ttl: [5m]}", `f.yaml:1:18: discharge.ttl: want a duration such as 90s, 5m, 12h or 30d, got a list`},
		{"list for mapping", "session: []", `f.yaml:1:10: session: want a mapping of idle, absolute, remember_ended, got a list`},
		{"mapping for list", "homeservers: {name: x}", `f.yaml:1:14: homeservers: want a list, got a mapping`},
		{"text for list", "homeservers: x", `f.yaml:1:14: homeservers: want a list, got "x"`},
		{"null", "store:\nlisten: :1", `f.yaml:1:7: store: want a value, got nothing; leave the key out for the default`},
		{"tag", "listen: !!str 1", `f.yaml:1:9: listen: want a string, got a value with the tag !!str; quote it if it is one`},
		{"alias", "log: &l {level: info}\nsession: *l", `f.yaml:2:10: session: want a mapping of idle, absolute, remember_ended, got an alias (*l); write the value out`},
		{"merge", "session: {<<: {idle: 1h}}", `f.yaml:1:11: session: want a name as key, got <<`},
		{"number for key", "1: 2", `f.yaml:1:1: want a name as key, got 1`},
		{"not a mapping", "- listen", `f.yaml:1:1: want a mapping of listen, admin_listen`},
		{"two documents", "listen: :1\n---\nlisten: :2", `f.yaml:2:1: a second document begins here, want one`},
		{"not yaml", "listen: :1\nkeys: [", `f.yaml:2: not YAML: did not find expected node content`},
		{"not yaml later", "listen: :1\n---\n[", `not YAML: `},
		{"too long", "#" + strings.Repeat("x", maxFile), `f.yaml: file has 8388609 bytes, want at most 8388608`},

		{"address", "listen: nowhere", `f.yaml:1:9: listen: want host:port, got "nowhere"`},
		{"port", "listen: a:99999", `f.yaml:1:9: listen: "99999" is not a port`},
		{"same address", "admin_listen: 127.0.0.1:8090", `f.yaml:1:15: admin_listen: is the same as listen`},
		{"public admin", "admin_listen: :8091", `f.yaml:1:15: admin_listen: :8091 is not a loopback address`},
		{"public url", "public_url: example.org", `f.yaml:1:13: public_url: want a URL such as`},
		{"data dir", "data_dir: ''", `f.yaml:1:11: data_dir: is empty`},
		{"zero ttl", "discharge: {ttl: 0s}", `f.yaml:1:18: discharge.ttl: want more than 0, got 0s`},
		{"zero grace", "discharge: {grace: 0s}", `f.yaml:1:20: discharge.grace: want more than 0, got 0s`},
		{"short max", "discharge: {max_ttl: 1m}", `f.yaml:1:22: discharge.max_ttl: 1m0s is shorter than discharge.ttl, 5m0s`},
		{"long ttl", "discharge: {ttl: 2h}", `f.yaml:1:12: discharge.max_ttl: 1h0m0s is shorter than discharge.ttl, 2h0m0s`},
		{"hectic feed", "feed: {heartbeat: 10ms}", `f.yaml:1:19: feed.heartbeat: want 1s to 10m, got 10ms`},
		{"silent feed", "feed: {heartbeat: 1h}", `f.yaml:1:19: feed.heartbeat: want 1s to 10m, got 1h0m0s`},
		{"feed without subscribers", "feed: {subscribers: 0}", `f.yaml:1:21: feed.subscribers: want 1 or more, got 0`},
		{"few places", "limits: {in_flight: 8}", `f.yaml:1:21: limits.in_flight: want 16 to 1000000, got 8`},
		{"too many places", "limits: {in_flight: 10000000}", `f.yaml:1:21: limits.in_flight: want 16 to 1000000, got 10000000`},
		{"no requests", "limits: {per_address: 0}", `f.yaml:1:23: limits.per_address: want 1 or more, got 0`},
		{"feed of nothing", "feed: {events: 10}", `f.yaml:1:16: feed.events: want 1000 or more, got 10`},
		{"short idle", "session: {idle: 1m}", `f.yaml:1:17: session.idle: 1m0s is not longer than discharge.ttl`},
		{"negative absolute", "session: {absolute: -1h}", `f.yaml:1:21: session.absolute: want 0s or more, got -1h0m0s`},
		{"short memory", "session: {remember_ended: 0s}", `f.yaml:1:27: session.remember_ended: want 1h or more, got 0s`},
		{"level", "log: {level: loud}", `f.yaml:1:14: log.level: want debug, info, warn or error, got "loud"`},
		{"format", "log: {format: xml}", `f.yaml:1:15: log.format: want text or json, got "xml"`},
		{"proxies of all addresses", "trusted_proxies: [0.0.0.0/0]", `f.yaml:1:19: trusted_proxies[0]: 0.0.0.0/0 contains every address`},
		{"host bits", "trusted_proxies: [10.1.0.0/8]", `trusted_proxies[0]: 10.1.0.0/8 has address bits beyond its length; write 10.0.0.0/8`},
		{"no address", "trusted_proxies: [proxy]", `trusted_proxies[0]: want an address or a network such as 192.0.2.0/24, got "proxy"`},
		{"mapped", "trusted_proxies: ['::ffff:10.0.0.0/104']", `trusted_proxies[0]: want IPv4 networks in IPv4 form, got ::ffff:10.0.0.0/104`},
		{"origin", "cors_origins: [app.example.org]", `f.yaml:1:16: cors_origins[0]: want "*" or an origin`},
		{"no origin", "cors_origins: []", `f.yaml:1:15: cors_origins: is empty`},
		{"origin with path", "cors_origins: ['https://a.example/']", `cors_origins[0]: want "*" or an origin`},

		{"no name", "homeservers: [{public_key: " + key1 + "}]", `f.yaml:1:15: homeservers[0]: key "name" is missing`},
		{"no key", "homeservers: [{name: a}]", `f.yaml:1:15: homeservers[0]: key "public_key" is missing; discharger keys new`},
		{"key not base64", "homeservers: [{name: a, public_key: abc}]", `f.yaml:1:37: homeservers[0].public_key: parse public key`},
		{"weak key", "homeservers: [{name: a, public_key: AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}]", `homeservers[0].public_key: key is weak`},
		{"key twice", "homeservers: [{name: a, public_key: " + key1 + ", previous_public_keys: " + key1 + "}]", `homeservers[0].previous_public_keys[0]: is homeservers[0].public_key too`},
		{"retired and used", "homeservers: [{name: a, public_key: " + key1 + ", retired_public_keys: " + key1 + "}]", `homeservers[0].retired_public_keys[0]: is homeservers[0].public_key too`},
		{"name twice", "homeservers: [{name: a}, {name: a}]", `f.yaml:1:33: homeservers[1].name: "a" is the name of homeservers[0] too`},
		{"name with control", "homeservers: [{name: \"a\\n\"}]", `homeservers[0].name: "a\n" has a character that a name cannot have`},
		{"long name", "homeservers: [{name: " + strings.Repeat("n", 256) + "}]", `homeservers[0].name: want at most 255 bytes, got 256`},
		{"digest", "homeservers: [{name: a, api_key_sha256: s3cret}]", `homeservers[0].api_key_sha256[0]: want 64 hexadecimal digits: the SHA-256`},
		{"digest of 64", "homeservers: [{name: a, api_key_sha256: " + strings.Repeat("x", 64) + "}]", `homeservers[0].api_key_sha256[0]: want 64 hexadecimal digits`},
		{"policy", "homeservers: [{name: a, policy: A B}]", `homeservers[0].policy: want up to 64 of a-z, 0-9, _, - and ., got "A B"`},

		{"unknown policy key", "policy: {file: p.yaml}", `f.yaml:1:10: policy: key "file" is unknown (did you mean files?)`},
		{"empty policy file", "policy: {files: ['']}", `f.yaml:1:18: policy.files[0]: is empty`},
		{"policy file twice", "policy: {files: [p.yaml, ./p.yaml]}", `f.yaml:1:26: policy.files[1]: is policy.files[0] too`},
		{"shadow of itself", "policy: {files: p.yaml, shadow: p.yaml}", `f.yaml:1:33: policy.shadow: is policy.files[0] too`},
		{"audit over rules", "policy: {files: p.yaml, audit: p.yaml}", `f.yaml:1:32: policy.audit: is policy.files[0] too`},
		{"policy as text", "policy: strict", `f.yaml:1:9: policy: want a mapping of files, shadow, audit, schema`},

		{"two stores", "store: {bolt: {}, redis: {addresses: a:1}}", `f.yaml:1:8: store: has both bolt and redis`},
		{"no addresses", "store: {redis: {}}", `f.yaml:1:16: store.redis: key "addresses" is missing`},
		{"no port", "store: {redis: {addresses: localhost}}", `f.yaml:1:28: store.redis.addresses[0]: want host:port`},
		{"port zero", "store: {redis: {addresses: 'localhost:0'}}", `store.redis.addresses[0]: "0" is not a port`},
		{"no host", "store: {redis: {addresses: ':6379'}}", `store.redis.addresses[0]: want host:port`},
		{"many without a kind", "store: {redis: {addresses: [a:1, b:2]}}", `store.redis.addresses: names 2 servers; set cluster`},
		{"both kinds", "store: {redis: {addresses: [a:1], cluster: true, master_name: m}}", `store.redis.cluster: excludes master_name`},
		{"cluster db", "store: {redis: {addresses: [a:1], cluster: true, db: 1}}", `store.redis.db: a cluster has database 0 only`},
		{"negative db", "store: {redis: {addresses: [a:1], db: -1}}", `store.redis.db: want 0 or more, got -1`},
		{"two passwords", "store: {redis: {addresses: [a:1], password_file: /nonexistent/p, password_env: P}}", `store.redis.password_env: excludes store.redis.password_file`},
		{"no password file", "store: {redis: {addresses: [a:1], password_file: /nonexistent/p}}", `f.yaml:1:50: store.redis.password_file: open /nonexistent/p: no such file`},
		{"no password variable", "store: {redis: {addresses: [a:1], password_env: P}}", `f.yaml:1:49: store.redis.password_env: secret is empty`},
		{"sentinel alone", "store: {redis: {addresses: [a:1], sentinel_username: u}}", `store.redis: key "master_name" is missing; there is`},
		{"half a certificate", "store: {redis: {addresses: [a:1], tls: {cert_file: c}}}", `store.redis.tls: cert_file and key_file require each other`},
		{"no authority", "store: {redis: {addresses: [a:1], tls: {ca_file: /nonexistent/ca}}}", `store.redis.tls: read authorities: open /nonexistent/ca`},
		{"authority not pem", "store: {redis: {addresses: [a:1], tls: {ca_file: /dev/null}}}", `store.redis.tls: read authorities: /dev/null has no certificate`},
		{"no certificate", "store: {redis: {addresses: [a:1], tls: {cert_file: /nonexistent/c, key_file: /nonexistent/k}}}", `store.redis.tls: read client certificate`},
		{"zero timeout", "store: {redis: {addresses: [a:1], timeouts: {read: 0s}}}", `store.redis.timeouts.read: want more than 0, got 0s`},
		{"durability", "store: {redis: {addresses: [a:1], durability: some}}", `store.redis.durability: want primary, replica or disk, got "some"`},
		{"pool", "store: {redis: {addresses: [a:1], pool_size: 0}}", `store.redis.pool_size: want 1 or more, got 0`},
		{"journal window", "store: {redis: {addresses: [a:1], journal: {window: 1s}}}", `store.redis.journal.window: want 1m or more, got 1s`},
		{"bolt journal window", "store: {bolt: {journal: {window: 1s}}}", `store.bolt.journal.window: want 1m or more, got 1s`},
		{"journal entries", "store: {redis: {addresses: [a:1], journal: {entries: 10}}}", `store.redis.journal.entries: want 1000 or more, got 10`},
		{"negative replicas", "store: {redis: {addresses: [a:1], replicas: -1}}", `store.redis.replicas: want 0 or more, got -1`},
		{"replicas for nothing", "store: {redis: {addresses: [a:1], replicas: 1}}", `store.redis.replicas: excludes durability: primary`},
		{"socket of a cluster", "store: {redis: {addresses: [/run/redis.sock], cluster: true}}", `store.redis.addresses[0]: want host:port`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg, err := parse([]byte(tt.text), Options{File: "f.yaml"})
			var problems yamlfile.Problems
			if !errors.As(err, &problems) || cfg != nil {
				t.Fatalf("got %v, %v; want problems", cfg, err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("repeats a secret: %v", err)
			}
		})
	}
}

// All mistakes are reported at once, in the order of the file.
func TestAllProblems(t *testing.T) {
	t.Parallel()
	_, err := parse([]byte("listen: nowhere\ndischarge: {ttl: soon, grace: 0s}\nlisen: 1\nlog: {level: 3}\n"), Options{
		File:  "f.yaml",
		Flags: map[string]string{"admin_listen": "0.0.0.0:1"},
	})
	want := `--admin-listen: admin_listen: 0.0.0.0:1 is not a loopback address, and its clients can read the metrics; set admin_public: true to allow that
f.yaml:1:9: listen: want host:port, got "nowhere"
f.yaml:2:18: discharge.ttl: want a duration such as 90s, 5m, 12h or 30d, got "soon"
f.yaml:2:31: discharge.grace: want more than 0, got 0s
f.yaml:3:1: key "lisen" is unknown (did you mean listen?)
f.yaml:4:14: log.level: want debug, info, warn or error, got 3`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// A misspelt key is one mistake, also where it is required.
func TestMisspeltRequiredKey(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"in a list":      {"homeservers: [{nmae: a, public_key: " + key1 + "}]", `f.yaml:1:16: homeservers[0]: key "nmae" is unknown (did you mean name?)`},
		"in a section":   {"gateway: {upstraem: x}", `f.yaml:1:11: gateway: key "upstraem" is unknown (did you mean upstream?)`},
		"below a secret": {"store: {redis: {addreses: hunter2}}", `f.yaml:1:17: store.redis: key "addreses" is unknown (did you mean addresses?)`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse([]byte(tt.text), Options{File: "f.yaml"})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// Every bound in a tag is a number or a duration, of a field that is one.
func TestBounds(t *testing.T) {
	t.Parallel()
	c := Default()
	c.Gateway, c.Store = &Gateway{}, Store{Bolt: &Bolt{}, Redis: &Redis{}}
	bounded := 0
	walk("", reflect.ValueOf(c).Elem(), reflect.StructField{}, func(key string, v reflect.Value, f reflect.StructField) {
		for _, tag := range []string{f.Tag.Get("min"), f.Tag.Get("max")} {
			if tag == "" {
				continue
			}
			bounded++
			if !v.CanInt() || bound(tag) == 0 && tag != "0" || (v.Type() == reflect.TypeFor[time.Duration]()) != strings.ContainsAny(tag, "nsmh") {
				t.Errorf("%s: bound %q", key, tag)
			}
		}
	})
	if bounded < 20 {
		t.Errorf("%d bounds", bounded)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "discharger.yaml")
	if _, err := Load(Options{File: path}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("data_dir: /d"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(Options{File: path})
	if err != nil || cfg.KeyFile() != "/d/keys.json" || cfg.BoltFile() != "/d/sessions.db" {
		t.Errorf("got %+v, %v", cfg, err)
	}
	if _, err := Load(Options{}); err != nil {
		t.Errorf("nothing: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(Example()))
	f.Add([]byte(commented.ReplaceAllString(Example(), "$1$2")))
	f.Add([]byte("homeservers: [{name: a, public_key: " + key1 + ", api_key_sha256: []}]"))
	f.Add([]byte("a: &a [*a]\n<<: *a"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := newDecoder("f.yaml", data)
		cfg := Default()
		ok := d.document(cfg)
		if !ok && d.err() == nil {
			t.Fatal("no document, and no reason")
		}
		d.validate(cfg)
		var problems yamlfile.Problems
		errors.As(d.err(), &problems)
		for _, p := range problems {
			if p.Message == "" || p.File == "" || p.Line < 0 {
				t.Fatalf("problem without a place or a message: %+v", p)
			}
		}
		if len(problems) == 0 && (cfg.Discharge.TTL <= 0 || cfg.Listen == "") {
			t.Fatalf("no problem with %+v", cfg)
		}
	})
}
