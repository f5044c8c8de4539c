package session

import (
	"encoding/binary"
	"errors"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// DeviceRecord is the record of one device of a user. Of the sessions activated on
// the device, only Current lives. The zero value is a device without a session.
type DeviceRecord struct {
	Current caveat.SessionID // zero: none
	Since   int64            // when Current was activated, Unix ms, kept to the second

	// Revoked is the mark of the device's latest revocation, Unix ms by the store's
	// clock; 0: none. It covers sessions without a record, except Except.
	Revoked int64
	End     revocation.End // of the sessions that Revoked covers
	Except  caveat.SessionID

	// Covered is the mark of the revocation before, if that one did not spare Except
	// or ended sessions in another way; 0: none. It spares no session.
	Covered    int64
	CoveredEnd revocation.End // of the sessions that Covered covers
}

// Revoke returns the record after one more revocation. Sessions that were covered
// before stay covered, with the same end.
func (v DeviceRecord) Revoke(at int64, except caveat.SessionID, end revocation.End) DeviceRecord {
	next := v
	next.Revoked, next.Except, next.End = at, except, end
	next.End.At = at
	switch {
	case v.Revoked == 0:
	case except != v.Except, except == caveat.SessionID{} && end.Soft != v.End.Soft:
		next.Cover(v.Revoked, v.End)
	default: // only one end is kept: the soft one, after which clients keep their keys
		next.End.Soft = end.Soft || v.End.Soft
	}
	return next
}

// Cover sets the mark Covered. Of two ends, the soft one is kept.
func (v *DeviceRecord) Cover(at int64, end revocation.End) {
	end.Soft = end.Soft || v.Covered > 0 && v.CoveredEnd.Soft
	v.Covered, v.CoveredEnd = at, end
}

const kindDevice = 0x41

const (
	deviceCurrent = 1 << iota
	deviceRevoked
	deviceExcept
	deviceCovered
	deviceFlags = 1<<iota - 1
)

// MarshalBinary returns the stored form. Integers are varints:
//
//	0x41, flags(1)
//	flag 1: Current(16) Since(s)
//	flag 2: Revoked(ms) End(as in appendEnd)
//	flag 4: Except(16)
//	flag 8: Covered(ms) CoveredEnd(as in appendEnd)
func (v DeviceRecord) MarshalBinary() ([]byte, error) {
	revoked := v.Revoked > 0
	flags := flagIf(v.Current != caveat.SessionID{}, deviceCurrent) | flagIf(revoked, deviceRevoked) |
		flagIf(revoked && v.Except != caveat.SessionID{}, deviceExcept) | flagIf(revoked && v.Covered > 0, deviceCovered)
	b := append(make([]byte, 0, 48), kindDevice, flags)
	if flags&deviceCurrent != 0 {
		b = binary.AppendUvarint(append(b, v.Current[:]...), uint64(max(v.Since, 0)/1000))
	}
	if flags&deviceRevoked != 0 {
		b = appendEnd(binary.AppendUvarint(b, uint64(v.Revoked)), v.End)
	}
	if flags&deviceExcept != 0 {
		b = append(b, v.Except[:]...)
	}
	if flags&deviceCovered != 0 {
		b = appendEnd(binary.AppendUvarint(b, uint64(v.Covered)), v.CoveredEnd)
	}
	return b, nil
}

var errDevice = errors.New("corrupt device record")

// UnmarshalBinary reads the stored form; of empty input, no record, the zero
// value. On error, v is zero.
func (v *DeviceRecord) UnmarshalBinary(b []byte) error {
	*v = DeviceRecord{}
	if len(b) == 0 {
		return nil
	}
	if len(b) < 2 || b[0] != kindDevice || b[1]&^deviceFlags != 0 {
		return errDevice
	}
	flags, d := b[1], decoder{b: b[2:]}
	var out DeviceRecord
	if flags&deviceCurrent != 0 {
		copy(out.Current[:], d.bytes(len(out.Current)))
		out.Since = d.seconds()
		d.fail(out.Current == caveat.SessionID{})
	}
	if flags&deviceRevoked != 0 {
		out.Revoked = d.millis()
		out.End = d.end()
		out.End.At = out.Revoked
		d.fail(out.Revoked == 0)
	}
	if flags&deviceExcept != 0 {
		copy(out.Except[:], d.bytes(len(out.Except)))
		d.fail(out.Except == caveat.SessionID{} || out.Revoked == 0)
	}
	if flags&deviceCovered != 0 {
		out.Covered = d.millis()
		out.CoveredEnd = d.end()
		out.CoveredEnd.At = out.Covered
		d.fail(out.Covered == 0 || out.Revoked == 0)
	}
	if d.bad || len(d.b) > 0 {
		return errDevice
	}
	*v = out
	return nil
}

// covers returns the mark of the device that covers a session without a record
// which was minted at a time, and the session's end; 0: none.
func (v *DeviceRecord) covers(c *caveat.Condition, minted int64) (mark int64, end revocation.End) {
	switch {
	case v.Covered > 0 && minted <= v.Covered:
		return v.Covered, v.CoveredEnd
	case v.Revoked > 0 && minted <= v.Revoked && v.Except != c.Session:
		return v.Revoked, v.End
	}
	return 0, revocation.End{}
}

// Lift returns the record with marks no later than now.
func (v DeviceRecord) Lift(now int64) DeviceRecord {
	v.Revoked, v.Covered = min(v.Revoked, now), min(v.Covered, now)
	v.End.At = v.Revoked
	if v.Covered > 0 {
		v.CoveredEnd.At = v.Covered
	}
	return v
}
