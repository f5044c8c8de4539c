package config

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestExampleEqualsDefaults(t *testing.T) {
	t.Parallel()
	got, err := parse([]byte(Example()), Options{File: "example.yaml"})
	if err != nil {
		t.Fatalf("the example does not parse:\n%v", err)
	}
	want := Default()
	if len(got.TrustedProxies) != 0 {
		t.Errorf("trusted proxies %v, want none", got.TrustedProxies)
	}
	got.TrustedProxies = want.TrustedProxies // empty and nil are the same thing here
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the example is\n%+v\nthe defaults are\n%+v", got, want)
	}
}

// commented matches a setting that is commented out: # and no space.
var commented = regexp.MustCompile(`(?m)^( *)#([^ ])`)

func TestExampleHasEveryKey(t *testing.T) {
	t.Parallel()
	all := commented.ReplaceAllString(Example(), "$1$2")
	d := newDecoder("example.yaml", []byte(all))
	cfg := Default()
	d.document(cfg)
	if err := d.err(); err != nil {
		t.Fatalf("the example does not parse with everything uncommented:\n%v", err)
	}
	shown := make(map[string]bool)
	index := regexp.MustCompile(`\[\d+\]`)
	for key := range d.places {
		shown[index.ReplaceAllString(key, "")] = true
	}
	for _, key := range paths() {
		if !shown[key] {
			t.Errorf("%s is not in the example", key)
		}
	}
	var redis Redis
	redis.setDefaults()
	if got := cfg.Store.Redis; got.Timeouts != redis.Timeouts || got.Durability != redis.Durability || got.PoolSize != redis.PoolSize ||
		got.Pipelining != redis.Pipelining || got.Journal.Window != redis.Journal.Window || got.Journal.Entries != redis.Journal.Entries || got.Journal.Enabled != redis.Journal.Enabled || got.Replicas != redis.Replicas || got.DB != redis.DB || got.Cluster != redis.Cluster {
		t.Errorf("the example's redis is %+v, the defaults are %+v", *got, redis)
	}
}

// Every key has a comment above it, and every variable is named there.
func TestExampleExplains(t *testing.T) {
	t.Parallel()
	lines := strings.Split(Example(), "\n")
	setting := regexp.MustCompile(`^ *#?(- )?[a-z0-9_]+:`)
	for i, line := range lines {
		if !setting.MatchString(line) {
			continue
		}
		// Up from a run of settings there has to be prose, or the mapping that
		// they are in.
		above := i - 1
		for above >= 0 && setting.MatchString(lines[above]) {
			above--
		}
		if above < 0 || !strings.HasPrefix(strings.TrimSpace(lines[above]), "# ") && lines[above] != "" {
			t.Errorf("line %d is not explained: %s", i+1, line)
		}
	}
	for _, v := range Variables() {
		if !strings.Contains(Example(), "$"+v.Name) {
			t.Errorf("$%s is not in the example", v.Name)
		}
	}
}
