package record

import (
	"encoding/binary"

	"github.com/discharger/discharger/discharger/store/limits"
)

// AppendText appends a string preceded by its length, an unsigned varint.
func AppendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decoder decodes bytes from the front. After the first error it returns zeros.
type Decoder struct {
	B   []byte // the bytes not decoded yet
	Bad bool   // an error occurred
}

// Bytes returns n bytes. After an error the result has at least 16 zeros.
func (d *Decoder) Bytes(n int) []byte {
	if d.Bad || n > len(d.B) {
		d.Bad = true
		return make([]byte, 16)
	}
	out := d.B[:n]
	d.B = d.B[n:]
	return out
}

// String returns a string of AppendText.
func (d *Decoder) String() string {
	n := d.Uvarint()
	if n > limits.MaxName || n > uint64(len(d.B)) {
		d.Bad = true
		return ""
	}
	return string(d.Bytes(int(n)))
}

// Uvarint returns an unsigned varint.
func (d *Decoder) Uvarint() uint64 { return take(d, binary.Uvarint) }

// Varint returns a signed varint.
func (d *Decoder) Varint() int64 { return take(d, binary.Varint) }

func take[T int64 | uint64](d *Decoder, decode func([]byte) (T, int)) T {
	v, n := decode(d.B)
	if d.Bad || n <= 0 {
		d.Bad = true
		return 0
	}
	d.B = d.B[n:]
	return v
}
