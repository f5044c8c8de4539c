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
