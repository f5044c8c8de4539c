package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// SplitRow takes a row apart. The record is valid as long as the transaction.
func SplitRow(value []byte) (Expiry, []byte, error) {
	if len(value) <= ExpirySize {
		return 0, nil, errors.New("damaged record")
	}
	return Expiry(binary.BigEndian.Uint32(value)), value[ExpirySize:], nil
}

const UntilSize = 8

func SplitEvent(value []byte) (until int64, data []byte, err error) {
	if len(value) < UntilSize {
		return 0, nil, ErrDamaged
	}
	return int64(binary.BigEndian.Uint64(value)), value[UntilSize:], nil
}

var ErrDamaged = errors.New("damaged record")

// Agrees reports whether a record allows a change: it is what the change says
// it was, or what the change would make it.
func Agrees(current, old, new []byte) bool {
	return bytes.Equal(current, old) || bytes.Equal(current, new)
}

// Expiry is the Unix second from which on a record is gone, 0 if it stays. It
// is stored in front of the record, big-endian.
type Expiry uint32

const ExpirySize = 4

// ExpiryOf rounds up: a record is never forgotten early. What lies after 2106
// is as good as never, and what lies before 1970 is over.
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

func (e Expiry) Passed(now time.Time) bool { return e != 0 && now.Unix() >= int64(e) }

func (e Expiry) Append(b []byte) []byte { return binary.BigEndian.AppendUint32(b, uint32(e)) }
