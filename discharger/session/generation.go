package session

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// GenerationRecord is the record of a user or of a homeserver: the number of revocations
// of all its sessions, and the time of the latest one. The zero value means none.
//
// A session has ended if its generation is below Generation; its end is that of the
// first revocation after its activation. So the record has the ends of the latest
// revocations, unless they are the default, a hard end by [revocation.CauseRevoked].
type GenerationRecord struct {
	Generation uint64
	At         int64            // Unix ms, by the store's clock
	Except     caveat.SessionID // spared by the latest one; zero: none
	Ends       []GenerationEnd  // ascending; at most MaxEnds
	Devices    bool             // the latest one spared sessions without a device

	// Covered is the time, Unix ms, of the latest revocation before it that did not
	// spare all of these: sessions minted until then are revoked in spite of Except
	// and Devices. 0: none.
	Covered int64

	SoftUpTo uint64 // generations up to this one without an entry in Ends ended softly
}

// GenerationEnd is the end of sessions by the revocation that raised the generation
// to Generation.
type GenerationEnd struct {
	Generation uint64
	revocation.End
}

// MaxEnds bounds GenerationRecord.Ends. Older ends are taken for soft, after which
// clients keep their keys.
const MaxEnds = 16

// Raise returns the record after one more revocation, which spares only except; see
// [GenerationRecord.Spare].
func (v GenerationRecord) Raise(at int64, except caveat.SessionID, end revocation.End) GenerationRecord {
	next := GenerationRecord{Generation: v.Generation + 1, At: max(at, v.At+1), SoftUpTo: v.SoftUpTo}
	next.Ends = append(next.Ends, v.Ends...)
	next.Spare(&v, except, false)
	next.note(GenerationEnd{Generation: next.Generation, End: revocation.End{Soft: end.Soft, Cause: end.Cause, Code: end.Code, At: next.At}})
	return next
}

// Spare sets the sessions that the latest revocation spares: except and, if devices is
// set, those without a device. Sessions that the record before covered stay covered.
func (v *GenerationRecord) Spare(before *GenerationRecord, except caveat.SessionID, devices bool) {
	v.Except, v.Devices, v.Covered = except, devices, 0
	none := caveat.SessionID{}
	switch {
	case except == none && !devices:
	case (except == none || except == before.Except) && (!devices || before.Devices):
		v.Covered = before.Covered
	default:
		v.Covered = before.At
	}
}

// note adds the end of a generation, which may be an old one, unless it is the default.
func (v *GenerationRecord) note(g GenerationEnd) {
	if g.Code == "" && !g.Soft && (g.Cause == revocation.CauseRevoked || g.Cause == revocation.CauseLogout) {
		return
	}
	i, found := slices.BinarySearchFunc(v.Ends, g.Generation, func(x GenerationEnd, generation uint64) int {
		return cmp.Compare(x.Generation, generation)
	})
	if found {
		return
	}
	if v.Ends = slices.Insert(v.Ends, i, g); len(v.Ends) > MaxEnds {
		v.SoftUpTo = max(v.SoftUpTo, v.Ends[0].Generation)
		v.Ends = v.Ends[1:]
	}
}

// EndAbove returns the end of a session that was activated in a generation below
// v.Generation.
func (v *GenerationRecord) EndAbove(generation uint64) revocation.End {
	for _, g := range v.Ends {
		if g.Generation == generation+1 {
			return g.End
		}
	}
	return revocation.End{Soft: generation+1 <= v.SoftUpTo, Cause: revocation.CauseRevoked, At: v.At}
}

// endSince returns the end of a session without a record that was minted no later
// than v.At: that of the oldest revocation since in Ends, otherwise the default.
func (v *GenerationRecord) endSince(minted int64) revocation.End {
	for _, g := range v.Ends {
		if g.At >= minted {
			return g.End
		}
	}
	return revocation.End{Cause: revocation.CauseRevoked, At: v.At}
}

// covers reports whether a session without a record, minted at a time, was revoked
// with all others.
func (v *GenerationRecord) covers(c *caveat.Condition, minted int64) bool {
	spared := v.Except == c.Session || v.Devices && c.Device == ""
	return minted <= v.At && !(spared && minted > v.Covered)
}

const (
	kindRevocation     = 0x31
	kindRevocationBut  = 0x32
	kindRevocationEnds = 0x33

	revocationDevices = 1 << 0
	revocationCovered = 1 << 1
	revocationFlags   = 1<<2 - 1
)

// MarshalBinary returns the stored form. Integers are varints:
//
//	0x31  Generation At(ms)
//	0x32  Generation At(ms) Except(16)
//	0x33  Generation At(ms) Except(16) flags(1: Devices, 2: Covered) [Covered(ms)]
//	      SoftUpTo count count*(Generation At(ms) end(as in appendEnd))
func (v GenerationRecord) MarshalBinary() ([]byte, error) {
	kind := byte(kindRevocation)
	switch {
	case len(v.Ends) > 0 || v.SoftUpTo > 0 || v.Devices || v.Covered > 0:
		kind = kindRevocationEnds
	case v.Except != (caveat.SessionID{}):
		kind = kindRevocationBut
	}
	b := binary.AppendUvarint([]byte{kind}, v.Generation)
	b = binary.AppendUvarint(b, uint64(max(v.At, 0)))
	if kind != kindRevocation {
		b = append(b, v.Except[:]...)
	}
	if kind == kindRevocationEnds {
		b = append(b, flagIf(v.Devices, revocationDevices)|flagIf(v.Covered > 0, revocationCovered))
		if v.Covered > 0 {
			b = binary.AppendUvarint(b, uint64(v.Covered))
		}
		b = binary.AppendUvarint(b, v.SoftUpTo)
		b = binary.AppendUvarint(b, uint64(len(v.Ends)))
		for _, g := range v.Ends {
			b = binary.AppendUvarint(b, g.Generation)
			b = binary.AppendUvarint(b, uint64(max(g.At, 0)))
			b = appendEnd(b, g.End)
		}
	}
	return b, nil
}

var errRevocation = errors.New("corrupt revocation record")

// UnmarshalBinary reads the stored form; of empty input, no record, the zero
// value. On error, v is zero.
func (v *GenerationRecord) UnmarshalBinary(b []byte) error {
	*v = GenerationRecord{}
	if len(b) == 0 {
		return nil
	}
	kind := b[0]
	if kind < kindRevocation || kind > kindRevocationEnds {
		return errRevocation
	}
	d := decoder{b: b[1:]}
	out := GenerationRecord{Generation: d.uvarint(), At: d.millis()}
	if kind != kindRevocation {
		copy(out.Except[:], d.bytes(len(out.Except)))
		d.fail(kind == kindRevocationBut && out.Except == caveat.SessionID{})
	}
	if kind == kindRevocationEnds {
		out.decodeEnds(&d)
	}
	if d.bad || len(d.b) > 0 {
		return errRevocation
	}
	*v = out
	return nil
}

func (v *GenerationRecord) decodeEnds(d *decoder) {
	flags := d.byte()
	v.Devices = flags&revocationDevices != 0
	if flags&revocationCovered != 0 {
		v.Covered = d.millis()
		d.fail(v.Covered == 0)
	}
	v.SoftUpTo = d.uvarint()
	n := d.uvarint()
	d.fail(flags&^revocationFlags != 0 || n > MaxEnds || n == 0 && v.SoftUpTo == 0 && flags == 0)
	last := uint64(0)
	for i := uint64(0); i < n && !d.bad; i++ {
		g := GenerationEnd{Generation: d.uvarint()}
		at := d.millis()
		g.End = d.end()
		g.At = at
		d.fail(g.Generation <= last)
		last = g.Generation
		v.Ends = append(v.Ends, g)
	}
}
