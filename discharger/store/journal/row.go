package journal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/record"
)

// The stored form of a row. A string is preceded by its length, an unsigned
// varint; At, Keep and ExceptKeep are signed varints.
//
//	format(1)     2
//	added(8)      when it was written, Unix ms, big-endian
//	kind(1)       0: the entry is void, and only the checksum follows
//	homeserver user session(16) except(16) generation at keep exceptkeep
//	flags(1)      1: soft, 2: only sessions that have a device, 4: a device follows
//	cause code
//	device(8)
//	checksum(4)   CRC-32C of the number (8, big-endian) and the bytes before
//
// Rows of earlier versions begin with added, whose first byte is 0 for millions
// of years, and end after exceptkeep. They have no checksum.
const (
	rowFormat = 2
	rowSum    = 4
)

const (
	entrySoft = 1 << iota
	entryDevices
	entryDevice
	entryFlags = 1<<iota - 1
)

var (
	ErrEntry   = errors.New("damaged entry")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// row is the row of one number.
type row struct {
	added int64 // Unix ms
	entry revocation.Revocation
	void  bool // the revocation did not take effect
	old   bool // of an earlier version, without a checksum
}

// appendSum appends the checksum of a number and the bytes stored under it.
func appendSum(b []byte, number uint64) []byte {
	return binary.BigEndian.AppendUint32(b, sumOf(number, b))
}

func sumOf(number uint64, b []byte) uint32 {
	sum := crc32.Checksum(binary.BigEndian.AppendUint64(nil, number), castagnoli)
	return crc32.Update(sum, castagnoli, b)
}

// encodeRow returns the row of an entry; a nil entry is void.
func encodeRow(number uint64, added int64, e *revocation.Revocation) []byte {
	b := binary.BigEndian.AppendUint64([]byte{rowFormat}, uint64(added))
	if e == nil {
		return appendSum(append(b, 0), number)
	}
	b = append(b, byte(e.Kind))
	b = record.AppendText(record.AppendText(b, e.Homeserver), e.User)
	b = append(append(b, e.Session[:]...), e.Except[:]...)
	b = binary.AppendUvarint(b, e.Generation)
	for _, n := range []int64{e.At, e.Keep, e.ExceptKeep} {
		b = binary.AppendVarint(b, n)
	}
	var flags byte
	if e.Soft {
		flags |= entrySoft
	}
	if e.Devices {
		flags |= entryDevices
	}
	if e.Tag != (revocation.DeviceTag{}) {
		flags |= entryDevice
	}
	b = record.AppendText(record.AppendText(append(b, flags), string(e.Cause)), e.Code)
	if flags&entryDevice != 0 {
		b = append(b, e.Tag[:]...)
	}
	return appendSum(b, number)
}

// EncodeEntry returns the form in which processes exchange an entry: its row with
// number 0.
func EncodeEntry(e *revocation.Revocation) []byte { return encodeRow(0, 0, e) }

// DecodeEntry decodes the result of EncodeEntry.
func DecodeEntry(b []byte) (revocation.Revocation, error) {
	r, err := decodeRow(0, b)
	if err != nil { // of an earlier version, without the time
		r, err = decodeRow(0, append(make([]byte, 8), b...))
	}
	if err == nil && r.void {
		err = ErrEntry
	}
	return r.entry, err
}

// decodeRow decodes the row of a number. On error, the result is zero.
func decodeRow(number uint64, b []byte) (row, error) {
	if len(b) > 0 && b[0] == rowFormat {
		return decodeSummed(number, b)
	}
	if len(b) < 9 {
		return row{}, ErrEntry
	}
	d := record.Decoder{B: b[9:]}
	r := row{added: int64(binary.BigEndian.Uint64(b)), old: true}
	readEntry(&d, &r.entry, revocation.Kind(b[8]))
	if d.Bad || len(d.B) > 0 || r.entry.Kind < revocation.KindSession || r.entry.Kind > revocation.KindHomeserver {
		return row{}, ErrEntry
	}
	return r, nil
}

func decodeSummed(number uint64, b []byte) (row, error) {
	n := len(b) - rowSum
	if n < 10 || binary.BigEndian.Uint32(b[n:]) != sumOf(number, b[:n]) {
		return row{}, ErrEntry
	}
	r := row{added: int64(binary.BigEndian.Uint64(b[1:])), void: b[9] == 0}
	d := record.Decoder{B: b[10:n]}
	if !r.void {
		e := &r.entry
		readEntry(&d, e, revocation.Kind(b[9]))
		flags := d.Bytes(1)[0]
		e.Soft, e.Devices = flags&entrySoft != 0, flags&entryDevices != 0
		e.Cause, e.Code = revocation.Cause(d.String()), d.String()
		if flags&entryDevice != 0 {
			copy(e.Tag[:], d.Bytes(len(e.Tag)))
		}
		if flags&^entryFlags != 0 || e.Kind > revocation.KindDevice {
			d.Bad = true
		}
	}
	if d.Bad || len(d.B) > 0 {
		return row{}, ErrEntry
	}
	return r, nil
}

// readEntry decodes the part of an entry that all versions have.
func readEntry(d *record.Decoder, e *revocation.Revocation, kind revocation.Kind) {
	e.Kind = kind
	e.Homeserver, e.User = d.String(), d.String()
	copy(e.Session[:], d.Bytes(len(e.Session)))
	copy(e.Except[:], d.Bytes(len(e.Except)))
	e.Generation = d.Uvarint()
	e.At, e.Keep, e.ExceptKeep = d.Varint(), d.Varint(), d.Varint()
}
