package journal

import (
	"bytes"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// FuzzDecodeEntry decodes rows of a journal: a decoded row encodes to an equal
// one.
func FuzzDecodeEntry(f *testing.F) {
	full := revocation.Revocation{
		Kind: revocation.KindDevice, Homeserver: "h", User: "u", Tag: revocation.DeviceTag{1}, Except: caveat.SessionID{2},
		Generation: 300, At: -1, Keep: 1 << 40, Soft: true, Devices: true, Cause: revocation.CausePolicy, Code: "outdated",
	}
	f.Add(uint64(7), encodeRow(7, 1, &full))
	f.Add(uint64(7), encodeRow(7, 1, nil))
	f.Add(uint64(8), append(make([]byte, 8), 1, 1, 'h', 1, 'u'))
	f.Add(uint64(1), oldRow(&revocation.Revocation{Kind: revocation.KindUser, Homeserver: "h", User: "u", Generation: 300, At: -1, Keep: 1 << 40}))
	f.Add(uint64(1), bytes.Repeat([]byte{0xff}, 60))
	f.Fuzz(func(t *testing.T, number uint64, b []byte) {
		r, err := decodeRow(number, b)
		if err != nil {
			if r != (row{}) {
				t.Fatalf("with an error: %+v", r)
			}
			return
		}
		var e *revocation.Revocation
		if !r.void {
			e = &r.entry
		}
		again, err := decodeRow(number, encodeRow(number, r.added, e))
		if again.old = r.old; err != nil || again != r {
			t.Fatalf("%+v was read as %+v, %v", r, again, err)
		}
		if !r.old {
			if _, err := decodeRow(number+1, b); err == nil {
				t.Fatal("a row is read under another number")
			}
		}
	})
}
