package discharger

import (
	"encoding/binary"
	"errors"

	"github.com/discharger/discharger/discharger/caveat"
)

// Cause is why sessions ended. The words are part of the wire contract: they
// are the reason of an event in the feed.
type Cause string

// The causes.
const (
	CauseLogout   Cause = "logout"   // by the client, or by another client of its user
	CauseReuse    Cause = "reuse"    // two parties held one refresh token
	CausePolicy   Cause = "policy"   // a policy decided so
	CauseLimit    Cause = "limit"    // a policy allows only so many sessions
	CauseRevoked  Cause = "revoked"  // by the homeserver or an operator
	CauseExpired  Cause = "expired"  // idle or absolute lifetime, or the time in the condition
	CauseReplaced Cause = "replaced" // a newer login on the same device
	CauseLost     Cause = "lost"     // the store lost its data
	causeAgain    Cause = "again"    // published again: the revocation is older than the event
)

// causeCodes are the stored numbers of causes. They never change.
var causeCodes = [...]Cause{
	0: CauseRevoked, 1: CauseLogout, 2: CauseReuse, 3: CausePolicy, 4: CauseLimit, 5: CauseExpired, 6: CauseReplaced, 7: CauseLost,
}

// End is how sessions ended. A hard end means that clients discard their
// encryption keys; after a soft end they log in again and keep them.
type End struct {
	Soft  bool
	Cause Cause
	Code  string // with CausePolicy: the reason that the policy gave; "": ReasonPolicy
	At    int64  // Unix ms
}

// Reason returns the reason of refusals because of this end.
func (e End) Reason() Reason {
	switch e.Cause {
	case CauseReuse:
		return ReasonTokenReused
	case CauseExpired:
		return ReasonSessionExpired
	case CauseReplaced:
		return ReasonReplaced
	case CauseLost:
		return ReasonSessionLost
	case CausePolicy:
		if e.Code != "" {
			return Reason(e.Code)
		}
		return ReasonPolicy
	}
	return ReasonSessionEnded
}

// maxEndCode bounds Code in a stored record, in bytes. Policies are held to
// the same bound.
const maxEndCode = 64

// appendEnd appends kind, cause and code, but not the time:
//
//	1 byte   bit 7: soft; bit 6: a code follows; the rest is the cause
//	string   the code, with its length first
func appendEnd(b []byte, e End) []byte {
	var head byte
	for n, c := range causeCodes {
		if c == e.Cause {
			head = byte(n)
		}
	}
	if e.Soft {
		head |= 1 << 7
	}
	if e.Code == "" || len(e.Code) > maxEndCode {
		return append(b, head)
	}
	return appendString(append(b, head|1<<6), e.Code)
}

// end reads what appendEnd wrote.
func (d *decoder) end() (e End) {
	head := d.byte()
	n := int(head & 0x3f)
	if n >= len(causeCodes) {
		d.bad = true
		return End{}
	}
	e.Soft, e.Cause = head&(1<<7) != 0, causeCodes[n]
	if head&(1<<6) != 0 {
		e.Code = d.string()
		d.fail(e.Code == "" || len(e.Code) > maxEndCode)
	}
	return e
}

// Revocation is the record of a user or of a homeserver: how often all of its
// sessions were revoked at once, and when that was last. The zero value means
// never.
//
// A session has ended if its generation is below Generation; its end is that
// of the revocation which came first after it was activated. So the record
// remembers how the latest revocations ended sessions, as far as that is not
// the default, a hard end by [CauseRevoked].
type Revocation struct {
	Generation uint64
	At         int64            // Unix ms, by the store's clock
	Except     caveat.SessionID // that the last one left alone; zero: none
	Ends       []GenerationEnd  // ascending; at most maxEnds
	Devices    bool             // the last one left sessions alone that have no device

	// Covered is the time, Unix ms, of the last revocation before it that spared
	// other sessions: what it revoked stays revoked, whatever Except and Devices
	// say. 0: there was none.
	Covered int64

	SoftUpTo uint64 // generations up to this one without an entry in Ends ended softly
}

// GenerationEnd is the end of sessions by the revocation that raised a
// generation to this one.
type GenerationEnd struct {
	Generation uint64
	End
}

// maxEnds bounds Revocation.Ends. What does not fit is remembered as soft,
// which costs nobody a key.
const maxEnds = 16

// raised returns the record after one more revocation. It spares
// only Except; see spare for more.
func (v Revocation) raised(at int64, except caveat.SessionID, end End) Revocation {
	next := Revocation{Generation: v.Generation + 1, At: max(at, v.At+1), SoftUpTo: v.SoftUpTo}
	next.Ends = append(next.Ends, v.Ends...)
	next.spare(&v, except, false)
	next.note(GenerationEnd{Generation: next.Generation, End: End{Soft: end.Soft, Cause: end.Cause, Code: end.Code, At: next.At}})
	return next
}

// spare sets what a revocation leaves alone. What the record before it covered
// stays covered.
func (v *Revocation) spare(before *Revocation, except caveat.SessionID, devices bool) {
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

// note adds the end of one generation, if it is not the default.
func (v *Revocation) note(g GenerationEnd) {
	if plain := (End{Cause: CauseRevoked, At: g.At}); g.End == plain || g.End == (End{Cause: CauseLogout, At: g.At}) {
		return // ReasonSessionEnded, hard
	}
	for i := range v.Ends {
		if v.Ends[i].Generation == g.Generation {
			return
		}
	}
	v.Ends = append(v.Ends, g)
	for len(v.Ends) > maxEnds {
		v.SoftUpTo = max(v.SoftUpTo, v.Ends[0].Generation)
		v.Ends = v.Ends[1:]
	}
}

// endAbove returns the end of a session that was activated in a generation
// below v.Generation.
func (v *Revocation) endAbove(generation uint64) End {
	for _, g := range v.Ends {
		if g.Generation == generation+1 {
			return g.End
		}
	}
	return End{Soft: generation+1 <= v.SoftUpTo, Cause: CauseRevoked, At: v.At}
}

// endSince returns the end of a session that was minted at a time no later
// than v.At and has no record: that of the oldest revocation since which is
// remembered, otherwise of the last.
func (v *Revocation) endSince(minted int64) End {
	for _, g := range v.Ends {
		if g.At >= minted {
			return g.End
		}
	}
	return End{Cause: CauseRevoked, At: v.At}
}

// covers reports whether everything was revoked when a session without a
// record had been minted already, unless it was excepted.
func (v *Revocation) covers(c *caveat.Condition, minted int64) bool {
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

// MarshalBinary returns the stored form: 0x31, generation, time in ms; with an
// exception 0x32, the same, and its 16 bytes. With ends or Devices, 0x33,
// generation, time, the exception's 16 bytes, flags (1: Devices, 2: Covered
// follows, as a time in ms), SoftUpTo, and the number of ends, each a generation, a time in ms and an end
// as [End] is stored.
func (v Revocation) MarshalBinary() ([]byte, error) {
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
		var flags byte
		if v.Devices {
			flags |= revocationDevices
		}
		if v.Covered > 0 {
			flags |= revocationCovered
		}
		b = append(b, flags)
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

// UnmarshalBinary reads the stored form; empty input, no record, is the zero
// value. On error, v is zero.
func (v *Revocation) UnmarshalBinary(b []byte) error {
	*v = Revocation{}
	if len(b) == 0 {
		return nil
	}
	kind := b[0]
	if kind < kindRevocation || kind > kindRevocationEnds {
		return errRevocation
	}
	d := decoder{b: b[1:]}
	out := Revocation{Generation: d.uvarint(), At: d.millis()}
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

func (v *Revocation) decodeEnds(d *decoder) {
	flags := d.byte()
	v.Devices = flags&revocationDevices != 0
	if flags&revocationCovered != 0 {
		v.Covered = d.millis()
		d.fail(v.Covered == 0)
	}
	v.SoftUpTo = d.uvarint()
	n := d.uvarint()
	d.fail(flags&^revocationFlags != 0 || n > maxEnds || n == 0 && v.SoftUpTo == 0 && flags == 0)
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
