package keys

import (
	"encoding/binary"

	"github.com/discharger/discharger/discharger/store/record"
)

const (
	HeaderSize = record.ExpirySize + 1 // bytes before the record in a first piece
	UserField  = "0"                   // field of a user's own record
	UserSecond = "1"                   // field of its second piece
	TagKeyLen  = 32                    // bytes
	Buckets    = 256                   // number of hash tags
	slots      = 16384
)

// Join returns the record in its pieces. A missing piece is nil.
func Join(first, short, long any) ([]byte, record.Expiry, error) {
	head, ok := first.(string)
	if !ok {
		if long != nil {
			return nil, 0, record.ErrDamaged
		}
		return nil, 0, nil
	}
	if len(head) <= HeaderSize {
		return nil, 0, record.ErrDamaged
	}
	var rest string
	switch head[record.ExpirySize] {
	case 0:
		ok = true
	case 1:
		rest, ok = short.(string)
	case 2:
		rest, ok = long.(string)
	default:
		ok = false
	}
	if !ok {
		return nil, 0, record.ErrDamaged
	}
	out := make([]byte, 0, len(head)-HeaderSize+len(rest))
	out = append(append(out, head[HeaderSize:]...), rest...)
	return out, record.Expiry(binary.BigEndian.Uint32([]byte(head[:record.ExpirySize]))), nil
}
