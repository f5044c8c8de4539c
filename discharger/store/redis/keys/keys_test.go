package keys

import (
	"fmt"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/secret"
)

// The names and keys of the first version; see TestBucketNames and TestKeys.
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
		if slot := int(crc16(name)) % slots; slot/(slots/Buckets) != i {
			t.Errorf("bucket %d named %q is in slot %d", i, name, slot)
		}
	}
	// The names are part of stored keys and must never change.
	if names := bucketNames(); strings.Join(names[:8], " ") != firstNames {
		t.Errorf("names begin with %q, want %q", strings.Join(names[:8], " "), firstNames)
	}
}

// TestKeys compares keys with those of the first version, which must not
// change.
func TestKeys(t *testing.T) {
	t.Parallel()
	l := New(secret.Bytes("0123456789abcdef0123456789abcdef"))
	user, bucket := l.User("example.org", "@alice:example.org")
	home, _ := l.Homeserver("example.org")
	if got := user + " " + home + " " + l.Identity[bucket]; got != firstKeys {
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
		key, bucket := l.Homeserver(h)
		add(key, fmt.Sprintf("homeserver %q", h))
		if id := l.Identity[bucket]; key[:6] != id[:6] {
			t.Errorf("%s and %s are not together", key, id)
		}
		for _, u := range names {
			key, bucket := l.User(h, u)
			add(key, fmt.Sprintf("user %q of %q", u, h))
			if id := l.Identity[bucket]; key[:6] != id[:6] {
				t.Errorf("%s and %s are not together", key, id)
			}
		}
	}
	other, _ := New(secret.Bytes("0123456789abcdef0123456789abcdeX")).User("example.org", "@alice:example.org")
	add(other, "user under another tag key")
	add(user, "user")
}

func TestSessionFields(t *testing.T) {
	t.Parallel()
	for i := range 256 {
		id := caveat.SessionID{0: byte(i), 15: 1}
		first, short, long := Session(id)
		if len(first) != 16 || len(long) != 17 || len(short) > 3 || short == UserField || short == UserSecond {
			t.Errorf("fields of %v are %q, %q, %q", id, first, short, long)
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
		record, e, err := Join(piece(0, head), piece(1, short), piece(2, long))
		switch {
		case err != nil:
			if record != nil || e != 0 {
				t.Fatalf("error and %q, %d", record, e)
			}
		case record == nil:
			if there&0b101 != 0 {
				t.Fatal("an existing record is reported as absent")
			}
		default:
			rest := map[byte]string{1: short, 2: long}[head[4]]
			if got := string(e.Append(nil)) + head[4:5] + string(record); got != head+rest {
				t.Fatalf("%q and %q became %q", head, rest, got)
			}
		}
	})
}
