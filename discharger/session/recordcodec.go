package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// The stored form of a record. The first byte is the format:
//
//	0x1m  live, m = mode        flags(1) created(u32 s) [userGen homeserverGen] device [policy]
//	                            first(party) [last(party)] [labels]
//	                            mode rotate: epoch [nonce(6)] confirmedAt(ms since created)
//	                                         [successor: nonce(6) issuedAt(ms since confirmed) tag(4)]
//	                            lastUsed(signed, s since issuedAt, else confirmedAt, else created)
//	0x20  ended softly, by an earlier version        endedAt(s) epoch
//	0x21  ended                 end(as in appendEnd) endedAt(s) epoch device
//
// A party is an address and the name of a client, for which earlier versions stored
// the first 40 bytes of the User-Agent. Integers without a width are varints, unsigned
// unless marked. Strings, and addresses of 0, 4 or 16 bytes, follow their length.
const (
	kindLive     = 0x10
	kindEndedOld = 0x20
	kindEnded    = 0x21

	flagLastDiffers = 1 << 0
	flagLabels      = 1 << 1
	flagSuccessor   = 1 << 2
	flagGenerations = 1 << 3
	flagPolicy      = 1 << 4

	flagsKnown = 1<<5 - 1
)

// maxRecord bounds a stored record, in bytes; only labels can be large.
const maxRecord = 16 << 10

var errRecord = errors.New("corrupt session record")

// MarshalBinary returns the stored form.
func (r *Record) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, 128)
	if r.Over() {
		b = appendEnd(append(b, kindEnded), r.End)
		b = binary.AppendUvarint(b, uint64(r.End.At/1000))
		return appendString(binary.AppendUvarint(b, r.Confirmed.Epoch), r.Device), nil
	}
	if r.Mode < caveat.ModeOpen || r.Mode > caveat.ModeHeld {
		return nil, fmt.Errorf("encode session record: mode %d", r.Mode)
	}
	flags := flagIf(r.Last != r.First, flagLastDiffers) | flagIf(len(r.Labels) > 0, flagLabels) |
		flagIf(r.Successor != nil, flagSuccessor) | flagIf(r.Policy != "", flagPolicy) |
		flagIf(r.UserGeneration > 0 || r.HomeserverGeneration > 0, flagGenerations)
	b = append(b, kindLive|byte(r.Mode), flags)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Created/1000))
	if flags&flagGenerations != 0 {
		b = binary.AppendUvarint(b, r.UserGeneration)
		b = binary.AppendUvarint(b, r.HomeserverGeneration)
	}
	b = appendString(b, r.Device)
	if flags&flagPolicy != 0 {
		b = appendString(b, r.Policy)
	}
	b = appendParty(b, r.First)
	if flags&flagLastDiffers != 0 {
		b = appendParty(b, r.Last)
	}
	if flags&flagLabels != 0 {
		b = binary.AppendUvarint(b, uint64(len(r.Labels)))
		for _, k := range slices.Sorted(maps.Keys(r.Labels)) {
			b = appendString(appendString(b, k), r.Labels[k])
		}
	}
	if r.Mode == caveat.ModeRotate {
		b = r.appendRotation(b)
	}
	b = binary.AppendVarint(b, r.LastUsed/1000-r.known()/1000)
	if len(b) > maxRecord {
		return nil, fmt.Errorf("encode session record: %d bytes", len(b))
	}
	return b, nil
}

func (r *Record) appendRotation(b []byte) []byte {
	b = binary.AppendUvarint(b, r.Confirmed.Epoch)
	if r.Confirmed.Epoch > 0 {
		b = append(b, r.Confirmed.Nonce[:]...)
	}
	created := r.Created / 1000 * 1000
	b = binary.AppendUvarint(b, uint64(max(r.Confirmed.At-created, 0)))
	if s := r.Successor; s != nil {
		b = append(b, s.Nonce[:]...)
		b = binary.AppendUvarint(b, uint64(max(s.IssuedAt-r.Confirmed.At, 0)))
		tag := s.tag(r.Confirmed)
		b = append(b, tag[:]...)
	}
	return b
}

// UnmarshalBinary reads a stored record. On error, r is zero.
func (r *Record) UnmarshalBinary(b []byte) error {
	*r = Record{}
	if len(b) == 0 || len(b) > maxRecord {
		return errRecord
	}
	d := decoder{b: b[1:]}
	var out Record
	switch mode := caveat.Mode(b[0] & 0x0f); {
	case b[0] == kindEndedOld, b[0] == kindEnded:
		out.decodeEnded(&d, b[0])
	case b[0]&0xf0 == kindLive && mode >= caveat.ModeOpen && mode <= caveat.ModeHeld:
		out.Mode = mode
		out.decodeLive(&d)
	default:
		return errRecord
	}
	if d.bad || len(d.b) > 0 {
		return errRecord
	}
	*r = out
	return nil
}

func (r *Record) decodeEnded(d *decoder, kind byte) {
	r.End = revocation.End{Soft: true, Cause: revocation.CauseRevoked}
	if kind == kindEnded {
		r.End = d.end()
	}
	r.End.At = d.seconds()
	r.Confirmed.Epoch = d.uvarint()
	if kind == kindEnded {
		r.Device = d.string()
	}
	d.fail(r.End.At <= 0)
}

func (r *Record) decodeLive(d *decoder) {
	flags := d.byte()
	d.fail(flags&^flagsKnown != 0)
	r.Created = int64(binary.BigEndian.Uint32(d.bytes(4))) * 1000
	if flags&flagGenerations != 0 {
		r.UserGeneration = d.uvarint()
		r.HomeserverGeneration = d.uvarint()
		d.fail(r.UserGeneration == 0 && r.HomeserverGeneration == 0)
	}
	r.Device = d.string()
	if flags&flagPolicy != 0 {
		r.Policy = d.string()
		d.fail(r.Policy == "")
	}
	r.First = d.party()
	r.Last = r.First
	if flags&flagLastDiffers != 0 {
		r.Last = d.party()
		d.fail(r.Last == r.First)
	}
	if flags&flagLabels != 0 {
		r.Labels = d.labels()
	}
	if r.Mode == caveat.ModeRotate {
		r.decodeRotation(d, flags)
	}
	d.fail(r.Mode != caveat.ModeRotate && flags&flagSuccessor != 0)
	r.LastUsed = (r.known()/1000 + d.varint()) * 1000
}

func (r *Record) decodeRotation(d *decoder, flags byte) {
	r.Confirmed.Epoch = d.uvarint()
	if r.Confirmed.Epoch > 0 {
		copy(r.Confirmed.Nonce[:], d.bytes(len(Nonce{})))
	}
	r.Confirmed.At = r.Created + d.millis()
	if flags&flagSuccessor != 0 {
		s := &Successor{}
		copy(s.Nonce[:], d.bytes(len(Nonce{})))
		s.IssuedAt = r.Confirmed.At + d.millis()
		s.setTag(RequestTag(d.bytes(4)), r.Confirmed)
		r.Successor = s
	}
}
