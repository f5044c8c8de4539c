package redis

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/secret"
)

// What the first version stored under; see TestBucketNames and TestKeys.
const (
	firstNames = "cv bl cr bh 6u bd cz d3"
	firstKeys  = "ds{b6}JPJAhaq08ISjjw9WLPui3A ds{cg}homeserver:fjbol2Lixxzl0lvC1uZ-GA ds{b6}store:7Rt-CognWj1FjMyy19JFLw"
)

func TestBucketNames(t *testing.T) {
	t.Parallel()
	if got := crc16("123456789"); got != 0x31c3 { // the check value of CRC-16/XMODEM
		t.Errorf("crc16 gives %#x", got)
	}
	seen := make(map[string]bool)
	for i, name := range bucketNames() {
		if name == "" || seen[name] || strings.ContainsAny(name, "{}") {
			t.Errorf("bucket %d is named %q", i, name)
		}
		seen[name] = true
		if slot := int(crc16(name)) % slots; slot/(slots/buckets) != i {
			t.Errorf("bucket %d named %q is in slot %d", i, name, slot)
		}
	}
	// The names are part of what is stored: they must never change.
	if names := bucketNames(); strings.Join(names[:8], " ") != firstNames {
		t.Errorf("names begin with %q, want %q", strings.Join(names[:8], " "), firstNames)
	}
}

// TestKeys keeps the keys of the first version, so that they stay what they
// are, and sees that no two names share one.
func TestKeys(t *testing.T) {
	t.Parallel()
	l := newLayout(secret.Bytes("0123456789abcdef0123456789abcdef"))
	user, storeID := l.user("example.org", "@alice:example.org")
	home, _ := l.homeserver("example.org")
	if got := user + " " + home + " " + storeID; got != firstKeys {
		t.Errorf("keys are %q, want %q", got, firstKeys)
	}
	if len(user) > 28 {
		t.Errorf("a user's key has %d bytes: more than 28 take another 16 from every user", len(user))
	}
	names := []string{"", "a", "b", "ab", "\x00", "\x00\x01", "a\x00", "\x00\x01a", strings.Repeat("a", 256), strings.Repeat("a", 257)}
	seen := make(map[string]string)
	add := func(key, what string) {
		if seen[key] != "" {
			t.Errorf("%s and %s have the same key", what, seen[key])
		}
		seen[key] = what
	}
	for _, h := range names {
		key, id := l.homeserver(h)
		add(key, fmt.Sprintf("homeserver %q", h))
		if key[:6] != id[:6] {
			t.Errorf("%s and %s are not together", key, id)
		}
		for _, u := range names {
			key, id := l.user(h, u)
			add(key, fmt.Sprintf("user %q of %q", u, h))
			if key[:6] != id[:6] {
				t.Errorf("%s and %s are not together", key, id)
			}
		}
	}
	other, _ := newLayout(secret.Bytes("0123456789abcdef0123456789abcdeX")).user("example.org", "@alice:example.org")
	add(other, "user under another tag key")
	add(user, "user")
}

func TestSessionFields(t *testing.T) {
	t.Parallel()
	for i := range 256 {
		id := caveat.SessionID{0: byte(i), 15: 1}
		first, short, long := sessionFields(id)
		if len(first) != 16 || len(long) != 17 || len(short) > 3 || short == userField || short == userSecond {
			t.Errorf("fields of %v are %q, %q, %q", id, first, short, long)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	for v, ok := range map[string]bool{
		"7.0.15": true, "6.2.0": true, "6.2": true, "7.2.4": true, "8.0.1": true, "10.0.0": true, "255.255.255": true,
		"6.0.16": false, "5.0.14": false, "2.8": false, "": false, "7": false, "x.y": false, "-1.9": false, "6.x": false,
	} {
		if err := checkVersion(v); (err == nil) != ok {
			t.Errorf("version %q: %v", v, err)
		}
	}
}

// TestHomeserverCache takes a record for old if either clock says so.
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
		var cache homeserverCache
		cache.put("h", home{record: []byte("r")}, asked)
		if got, ok := cache.get("h", c.now, time.Second); ok != c.want || ok && string(got.record) != "r" {
			t.Errorf("%s: %q, %v", c.what, got.record, ok)
		}
		if got, ok := cache.get("other", c.now, time.Second); ok {
			t.Errorf("%s: another homeserver has %q", c.what, got.record)
		}
	}
	var cache homeserverCache
	cache.put("h", home{record: []byte("new")}, asked.Add(time.Second))
	cache.put("h", home{record: []byte("old")}, asked) // its answer took longer
	if got, ok := cache.get("h", asked.Add(time.Second), time.Second); !ok || string(got.record) != "new" {
		t.Errorf("an old answer replaced a newer one: %q, %v", got.record, ok)
	}
	cache.put("none", home{}, asked)
	if got, ok := cache.get("none", asked, time.Second); !ok || got.record != nil {
		t.Errorf("that there is none was not remembered: %q, %v", got.record, ok)
	}
}

func TestDisk(t *testing.T) {
	t.Parallel()
	cfg := Config{Durability: DurabilityDisk}
	if err := cfg.completeDurability(); err != nil || cfg.Replicas != 0 {
		t.Errorf("disk: %d replicas, %v", cfg.Replicas, err)
	}
	r := &Store{cfg: Config{Durability: DurabilityDisk, Replicas: 1, ReadTimeout: time.Second}}
	for _, c := range []struct {
		answer []int64
		want   string
	}{
		{[]int64{1, 1}, ""},
		{[]int64{1, 2}, ""},
		{[]int64{0, 1}, "the primary has not confirmed"},
		{[]int64{1, 0}, "0 of 1 replicas"},
		{[]int64{1}, "1 values"},
		{nil, "0 values"},
	} {
		b := r.barrier(t.Context())
		if got := fmt.Sprint(b.command().Args()); got != "[waitaof 1 1 750]" {
			t.Errorf("command is %q", got)
		}
		b.disk.SetVal(c.answer)
		err := b.passed()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.answer, err, c.want)
		}
	}
}

// FuzzJoin puts pieces together that may be anything.
func FuzzJoin(f *testing.F) {
	f.Add("\x00\x00\x00\x00\x00record", "", "", byte(1))
	f.Add("\x65\x43\x21\x00\x01first", "second", "", byte(3))
	f.Add("\xff\xff\xff\xff\x02first", "", "second", byte(5))
	f.Add("\x00\x00\x00\x00\x03x", "a", "b", byte(7))
	f.Fuzz(func(t *testing.T, head, short, long string, there byte) {
		piece := func(i int, s string) any {
			if there&(1<<i) == 0 {
				return nil
			}
			return s
		}
		record, e, err := join(piece(0, head), piece(1, short), piece(2, long))
		switch {
		case err != nil:
			if record != nil || e != 0 {
				t.Fatalf("error and %q, %d", record, e)
			}
		case record == nil:
			if there&0b101 != 0 {
				t.Fatal("what is there is taken for nothing")
			}
		default:
			rest := map[byte]string{1: short, 2: long}[head[4]]
			if got := string(e.Append(nil)) + head[4:5] + string(record); got != head+rest {
				t.Fatalf("%q and %q became %q", head, rest, got)
			}
		}
	})
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
			if head, ok := fields[string(id[:])]; !ok || !bytes.HasPrefix(record, []byte(head[headerSize:])) {
				t.Fatalf("session %v has record %q", id, record)
			}
		}
		if _, ok := fields[userField]; ok != (l.User != nil) {
			t.Fatalf("user is %q", l.User)
		}
	})
}

// FuzzInfo reads whatever a server says about itself.
func FuzzInfo(f *testing.F) {
	f.Add("# Server\r\nredis_version:7.0.15\r\n\r\nredis_mode:standalone\r\n")
	f.Add("redis_version:6.0.16\nmaxmemory_policy:")
	f.Fuzz(func(t *testing.T, text string) {
		info := parseInfo(text)
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
