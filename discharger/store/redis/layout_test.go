package redis

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/store/redis/conn"
	"github.com/discharger/discharger/discharger/store/redis/keys"
)

func TestVersion(t *testing.T) {
	t.Parallel()
	for v, ok := range map[string]bool{
		"7.0.15": true, "6.2.0": true, "6.2": true, "7.2.4": true, "8.0.1": true, "10.0.0": true, "255.255.255": true,
		"6.0.16": false, "5.0.14": false, "2.8": false, "": false, "7": false, "x.y": false, "-1.9": false, "6.x": false,
	} {
		t.Run(v, func(t *testing.T) {
			if err := checkVersion(v); (err == nil) != ok {
				t.Errorf("version %q: %v", v, err)
			}
		})
	}
}

// TestHomeserverCache expires a record by either clock.
func TestHomeserverCache(t *testing.T) {
	t.Parallel()
	asked := time.Now()
	for _, c := range []struct {
		what string
		now  time.Time
		want bool
	}{
		{"at once", asked, true},
		{"in time", asked.Add(999 * time.Millisecond), true},
		{"too late", asked.Add(time.Second), false},
		{"before", asked.Add(-time.Millisecond), false},
		{"wall clock only, in time", asked.Round(0).Add(999 * time.Millisecond), true},
		{"wall clock only, too late", asked.Round(0).Add(time.Second), false},
	} {
		t.Run(c.what, func(t *testing.T) {
			var cache homeserverCache
			cache.put("h", home{record: []byte("r"), asked: asked})
			if got, ok := cache.get("h", c.now, time.Second); ok != c.want || ok && string(got.record) != "r" {
				t.Errorf("%s: %q, %v", c.what, got.record, ok)
			}
			if got, ok := cache.get("other", c.now, time.Second); ok {
				t.Errorf("%s: another homeserver has %q", c.what, got.record)
			}
		})
	}
	var cache homeserverCache
	cache.put("h", home{record: []byte("new"), asked: asked.Add(time.Second)})
	cache.put("h", home{record: []byte("old"), asked: asked}) // its answer took longer
	if got, ok := cache.get("h", asked.Add(time.Second), time.Second); !ok || string(got.record) != "new" {
		t.Errorf("an old answer replaced a newer one: %q, %v", got.record, ok)
	}
	cache.put("none", home{asked: asked})
	if got, ok := cache.get("none", asked, time.Second); !ok || got.record != nil {
		t.Errorf("that there is none was not remembered: %q, %v", got.record, ok)
	}
}

func TestWaitForDisk(t *testing.T) {
	t.Parallel()
	cfg := Config{Durability: DurabilityDisk}
	if err := cfg.completeDurability(); err != nil || cfg.Replicas != 0 {
		t.Errorf("disk: %d replicas, %v", cfg.Replicas, err)
	}
	r := &Store{cfg: Config{Durability: DurabilityDisk, Replicas: 1, ReadTimeout: time.Second}}
	for _, c := range []struct {
		answer []any
		want   string
	}{
		{[]any{int64(1), int64(1)}, ""},
		{[]any{int64(1), int64(2)}, ""},
		{[]any{int64(0), int64(1)}, "the primary has not confirmed"},
		{[]any{int64(1), int64(0)}, "0 of 1 replicas"},
		{[]any{int64(1)}, "1 values"},
		{[]any{}, "0 values"},
	} {
		t.Run(fmt.Sprint(c.answer), func(t *testing.T) {
			b := r.barrier(t.Context())
			if got := fmt.Sprint(b.Args()); got != "[waitaof 1 1 750]" {
				t.Errorf("command is %q", got)
			}
			b.SetVal(c.answer)
			err := b.passed()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %v, want %q", c.answer, err, c.want)
			}
		})
	}
}

// FuzzJoinAll reads a hash with any fields.
func FuzzJoinAll(f *testing.F) {
	f.Add("0", "\x00\x00\x00\x00\x00user", "0123456789abcdef", "\x00\x00\x00\x00\x01sess", "50", "ion")
	f.Add("1", "x", "0123456789abcdef\x01", "y", "2", "z")
	f.Fuzz(func(t *testing.T, f1, v1, f2, v2, f3, v3 string) {
		fields := map[string]string{f1: v1, f2: v2, f3: v3}
		l, err := joinAll(fields, time.Unix(1_700_000_000, 0))
		if err != nil {
			if l.User != nil || l.Sessions != nil {
				t.Fatalf("error and %+v", l)
			}
			return
		}
		for id, record := range l.Sessions {
			if head, ok := fields[string(id[:])]; !ok || !bytes.HasPrefix(record, []byte(head[keys.HeaderSize:])) {
				t.Fatalf("session %v has record %q", id, record)
			}
		}
		if _, ok := fields[keys.UserField]; ok != (l.User != nil) {
			t.Fatalf("user is %q", l.User)
		}
	})
}

// FuzzInfo parses arbitrary replies to INFO.
func FuzzInfo(f *testing.F) {
	f.Add("# Server\r\nredis_version:7.0.15\r\n\r\nredis_mode:standalone\r\n")
	f.Add("redis_version:6.0.16\nmaxmemory_policy:")
	f.Fuzz(func(t *testing.T, text string) {
		info := conn.ParseInfo(text)
		for name, value := range info {
			if !strings.Contains(text, name+":"+value) {
				t.Fatalf("%q: %q is not in %q", name, value, text)
			}
		}
		if err := checkVersion(info["redis_version"]); err == nil && !strings.Contains(text, "redis_version:") {
			t.Fatalf("accepted %q", text)
		}
	})
}

func TestStorePrintsNoSecret(t *testing.T) {
	t.Parallel()
	r := &Store{cfg: Config{TagKey: []byte("tag key"), Access: conn.Access{Password: []byte("password")}}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if text := fmt.Sprintf(verb, r); text != "redis store" {
			t.Errorf("%s prints %q", verb, text)
		}
	}
}
