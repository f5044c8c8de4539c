// Package record is the stored form of records and events, which the stores and
// backups share:
//
//	row    expiry(4) record
//	event  until(8, Unix ms) data
//
// Numbers are big-endian. The package does not read a record.
package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/discharger/discharger/discharger/store/limits"
)

// ErrDamaged is returned for bytes that no store wrote.
var ErrDamaged = errors.New("damaged record")

// SplitRow returns the expiry and the record of a row. The record is part of value.
func SplitRow(value []byte) (Expiry, []byte, error) {
	if len(value) <= ExpirySize {
		return 0, nil, ErrDamaged
	}
	return Expiry(binary.BigEndian.Uint32(value)), value[ExpirySize:], nil
}

// UntilSize is the number of bytes before the data of an event.
const UntilSize = 8

// SplitEvent returns the time until which an event is kept, Unix ms, and its data.
func SplitEvent(value []byte) (until int64, data []byte, err error) {
	if len(value) < UntilSize {
		return 0, nil, ErrDamaged
	}
	return int64(binary.BigEndian.Uint64(value)), value[UntilSize:], nil
}

// Agrees reports whether a change can be made: the current record is the old or the
// new one of the change.
func Agrees(current, old, new []byte) bool {
	return bytes.Equal(current, old) || bytes.Equal(current, new)
}

// Expiry is the Unix second at which a record expires; 0: never.
type Expiry uint32

// ExpirySize is the number of bytes of a stored expiry.
const ExpirySize = 4

// ExpiryOf returns the expiry of a time, rounded up. A time after 2106 never
// expires, one before 1970 has expired.
func ExpiryOf(t time.Time) Expiry {
	if t.IsZero() {
		return 0
	}
	sec := t.Unix()
	if t.Nanosecond() > 0 {
		sec++
	}
	switch {
	case sec < 1:
		return 1
	case sec > math.MaxUint32:
		return 0
	}
	return Expiry(sec)
}

// Passed reports whether a record has expired.
func (e Expiry) Passed(now time.Time) bool { return e != 0 && now.Unix() >= int64(e) }

// Append appends the stored form.
func (e Expiry) Append(b []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(e)) }

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
