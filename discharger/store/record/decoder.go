package record

import (
	"encoding/binary"

	"github.com/discharger/discharger/discharger/store/limits"
)

func AppendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decoder returns zeros after the first error.
type Decoder struct {
	B   []byte
	Bad bool
}

func (d *Decoder) Bytes(n int) []byte {
	if d.Bad || n > len(d.B) {
		d.Bad = true
		return make([]byte, 16)
	}
	out := d.B[:n]
	d.B = d.B[n:]
	return out
}

func (d *Decoder) String() string {
	n := d.Uvarint()
	if n > limits.MaxName || n > uint64(len(d.B)) {
		d.Bad = true
		return ""
	}
	return string(d.Bytes(int(n)))
}

func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.B)
	if d.Bad || n <= 0 {
		d.Bad = true
		return 0
	}
	d.B = d.B[n:]
	return v
}

func (d *Decoder) Varint() int64 {
	v, n := binary.Varint(d.B)
	if d.Bad || n <= 0 {
		d.Bad = true
		return 0
	}
	d.B = d.B[n:]
	return v
}
