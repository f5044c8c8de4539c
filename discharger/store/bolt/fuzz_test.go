package bolt

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/limits"
	"github.com/discharger/discharger/discharger/store/record"
)

// FuzzRow takes apart a row of a bbolt file.
func FuzzRow(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x01r"))
	f.Add([]byte("\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, row []byte) {
		e, record, err := record.SplitRow(row)
		if err != nil {
			if e != 0 || record != nil {
				t.Fatalf("error and %d, %q", e, record)
			}
			return
		}
		if len(record) == 0 || !bytes.Equal(append(e.Append(nil), record...), row) {
			t.Fatalf("%q became %d, %q", row, e, record)
		}
	})
}

// FuzzRowKey builds keys for any names: none begins another's.
func FuzzRowKey(f *testing.F) {
	f.Add("a", "bc", "ab", "c")
	f.Add("", "", "\x00\x00", "")
	f.Fuzz(func(t *testing.T, h1, u1, h2, u2 string) {
		if max(len(h1), len(u1), len(h2), len(u2)) > limits.MaxName {
			return
		}
		a := userPrefix(store.UserKey{Homeserver: h1, User: u1})
		b := userPrefix(store.UserKey{Homeserver: h2, User: u2})
		if same := h1 == h2 && u1 == u2; same != bytes.Equal(a, b) || !same && (bytes.HasPrefix(a, b) || bytes.HasPrefix(b, a)) {
			t.Fatalf("%q %q and %q %q", h1, u1, h2, u2)
		}
		if n := binary.BigEndian.Uint16(a); int(n) != len(h1) {
			t.Fatalf("length is %d", n)
		}
	})
}
