package journal

import (
	"encoding/binary"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/record"
)

// oldRow is a row as it was written before rows had checksums.
func oldRow(e *revocation.Revocation) []byte {
	b := append(make([]byte, 8), byte(e.Kind))
	b = record.AppendText(record.AppendText(b, e.Homeserver), e.User)
	b = append(append(b, e.Session[:]...), e.Except[:]...)
	b = binary.AppendUvarint(b, e.Generation)
	for _, n := range []int64{e.At, e.Keep, e.ExceptKeep} {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// OldRow is a row as it was written before rows had checksums.
func OldRow(e revocation.Revocation) []byte { return oldRow(&e) }

// OldRowAt is one that was added at a time.
func OldRowAt(at time.Time, e revocation.Revocation) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli())), oldRow(&e)[8:]...)
}
