package discharger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"unicode/utf8"

	"github.com/discharger/discharger/discharger/caveat"
)

// Record is what the service remembers of one session. Times are Unix
// milliseconds; Created and LastUsed are kept to the second.
//
// An ended record (End.At > 0) is a tombstone: of the rest only Device and
// Confirmed.Epoch are kept.
type Record struct {
	Mode    caveat.Mode
	Created int64 // first discharge
	End     End   // how the session ended, End.At kept to the second; zero: it lives

	UserGeneration       uint64 // the user's generation when the session was activated
	HomeserverGeneration uint64 // likewise the homeserver's

	Device   string            // as in the condition
	Policy   string            // as in the condition
	Labels   map[string]string // stored by a policy; the condition's own are not repeated here
	LastUsed int64             // last discharge; throttled in modes open and held
	First    Party             // who activated the session
	Last     Party             // who used it last

	// In mode rotate: the refresh token that is known to have arrived, and
	// the newest one that was handed out in exchange for it. Epoch 0 is
	// activation, for which no token exists. Every token of the successor's
	// epoch is unused, and the first one that is used confirms itself.
	Confirmed Confirmed
	Successor *Successor // nil: none was handed out
}

// Nonce tells apart refresh tokens of one epoch: when the token was issued, in
// Unix milliseconds, big-endian. In a session it strictly increases. Tokens of
// earlier versions have random bytes there.
type Nonce [6]byte

// nonceAt returns the nonce of a token issued at a time in Unix ms.
func nonceAt(ms int64) (n Nonce) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(ms))
	copy(n[:], b[2:])
	return n
}

// issued returns when a token was issued, in Unix ms; 0 if that is not within
// the bounds, since the bytes are random.
func (n Nonce) issued(from, to int64) int64 {
	var b [8]byte
	copy(b[2:], n[:])
	if ms := int64(binary.BigEndian.Uint64(b[:])); ms >= from && ms <= to {
		return ms
	}
	return 0
}

// Confirmed is the newest refresh token known to have reached the client.
type Confirmed struct {
	Epoch uint64
	Nonce Nonce // zero in epoch 0
	At    int64 // when it was first seen to have arrived
}

// Successor is the newest refresh token that was handed out in exchange for
// the confirmed one. Its epoch is one higher.
type Successor struct {
	Nonce    Nonce
	IssuedAt int64
	Tag      RequestTag // of the request that it answered; zero with Reported

	// Reported is when a discharge of its epoch was first seen in use, kept to
	// whole seconds after the confirmed token was; 0: it was not.
	Reported int64
}

// RequestTag is a digest of a client's request-id; zero if it sent none. The
// lowest bit of its first byte is set otherwise.
type RequestTag [4]byte

// The stored form has no room of its own for Successor.Reported: earlier
// versions read it as the tag of a request that never comes again.

// report notes that a discharge of the successor was seen in use.
func (s *Successor) report(now int64, c Confirmed) {
	s.Reported, s.Tag = c.At+min(max(now-c.At, 0)/1000, 1<<24-1)*1000, RequestTag{}
}

// tag returns the stored tag of a successor.
func (s *Successor) tag(c Confirmed) RequestTag {
	if s.Reported == 0 {
		return s.Tag
	}
	after := (s.Reported - c.At) / 1000
	return RequestTag{reportedTag, byte(after >> 16), byte(after >> 8), byte(after)}
}

// setTag reads what tag returned.
func (s *Successor) setTag(t RequestTag, c Confirmed) {
	if t[0] != reportedTag {
		s.Tag = t
		return
	}
	s.Reported = c.At + (int64(t[1])<<16|int64(t[2])<<8|int64(t[3]))*1000
}

const reportedTag = 0x02

// The stored form of a record. The first byte names format and kind, so that
// another format can be told apart:
//
//	0x1m  live, m = mode        flags(1) created(u32 s) [userGen homeserverGen] device [policy]
//	                            first(party) [last(party)] [labels]
//	                            mode rotate: epoch [nonce(6)] confirmedAt(ms since created)
//	                                         [successor: nonce(6) issuedAt(ms since confirmed) tag(4)]
//	                            lastUsed(signed, s since issuedAt, else confirmedAt, else created)
//	0x20  ended, by an earlier version: softly       endedAt(s) epoch
//	0x21  ended                 end(as in appendEnd) endedAt(s) epoch device
//
// A party is an address and the name of a client; earlier versions stored the first
// 40 bytes of the User-Agent as that name.
//
// Integers without a width are varints, unsigned unless it says so; strings, and addresses of
// 0, 4 or 16 bytes, carry their length first.
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

// maxRecord bounds a stored record: labels are the only large part.
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
	var flags byte
	if r.Last != r.First {
		flags |= flagLastDiffers
	}
	if len(r.Labels) > 0 {
		flags |= flagLabels
	}
	if r.Successor != nil {
		flags |= flagSuccessor
	}
	if r.UserGeneration > 0 || r.HomeserverGeneration > 0 {
		flags |= flagGenerations
	}
	if r.Policy != "" {
		flags |= flagPolicy
	}
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

// known is the latest time in the record but for LastUsed, which is near it.
func (r *Record) known() int64 {
	switch {
	case r.Successor != nil:
		return r.Successor.IssuedAt
	case r.Mode == caveat.ModeRotate:
		return r.Confirmed.At
	}
	return r.Created
}

// lastUse is when the session was used last, as precisely as the record says:
// in mode rotate to the millisecond.
func (r *Record) lastUse() int64 { return max(r.LastUsed, r.known()) }

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

// Over reports whether the session has ended.
func (r *Record) Over() bool { return r.End.At > 0 }

func (r *Record) decodeEnded(d *decoder, kind byte) {
	r.End = End{Soft: true, Cause: CauseRevoked}
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

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendParty(b []byte, p Party) []byte {
	a := p.Addr.Unmap().WithZone("").AsSlice()
	b = append(append(b, byte(len(a))), a...)
	return appendString(b, p.Client)
}

// decoder reads the stored form. After the first error it returns zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail(cond bool) {
	if cond {
		d.bad = true
	}
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return make([]byte, min(n, 16))
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) byte() byte { return d.bytes(1)[0] }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	// The last byte of a minimal varint is not zero, unless it is the only one.
	if d.bad || n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// varint reads a signed integer, with the same care.
func (d *decoder) varint() int64 {
	v := d.uvarint()
	d.fail(v >= 1<<44)
	if d.bad {
		return 0
	}
	return int64(v>>1) ^ -int64(v&1)
}

// millis reads a duration or a time; it stays far from overflow.
func (d *decoder) millis() int64 {
	v := d.uvarint()
	d.fail(v >= 1<<53)
	if d.bad {
		return 0
	}
	return int64(v)
}

func (d *decoder) seconds() int64 {
	v := d.millis()
	d.fail(v >= 1<<43)
	return v * 1000
}

func (d *decoder) string() string {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return ""
	}
	s := string(d.bytes(int(n)))
	d.fail(!utf8.ValidString(s))
	return s
}

func (d *decoder) party() Party {
	var p Party
	switch n := d.byte(); n {
	case 0:
	case 4, 16:
		p.Addr, _ = netip.AddrFromSlice(d.bytes(int(n)))
		d.fail(p.Addr.Is4In6())
	default:
		d.bad = true
	}
	p.Client = d.string()
	d.fail(len(p.Client) > MaxClient)
	return p
}

func (d *decoder) labels() map[string]string {
	n := d.uvarint()
	d.fail(n == 0 || n > uint64(len(d.b)))
	m := make(map[string]string)
	last := ""
	for i := uint64(0); i < n && !d.bad; i++ {
		k := d.string()
		d.fail(i > 0 && k <= last)
		m[k], last = d.string(), k
	}
	return m
}
