package store

import (
	"bytes"
	"testing"

	"github.com/discharger/discharger/discharger"
)

// FuzzDecodeEntry reads rows of a journal: what is understood is written back
// as the same entry, and of the rest nothing is left.
func FuzzDecodeEntry(f *testing.F) {
	f.Add(appendEntry(make([]byte, 8), &discharger.JournalEntry{Kind: discharger.JournalUser, Homeserver: "h", User: "u", Generation: 300, At: -1, Keep: 1 << 40}))
	f.Add(bytes.Repeat([]byte{0xff}, 60))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, e, err := decodeEntry(b)
		if err != nil {
			if e != (discharger.JournalEntry{}) {
				t.Fatalf("with an error: %+v", e)
			}
			return
		}
		row := appendEntry(b[:8:8], &e)
		if _, again, err := decodeEntry(row); err != nil || again != e {
			t.Fatalf("%+v was read as %+v, %v", e, again, err)
		}
	})
}
