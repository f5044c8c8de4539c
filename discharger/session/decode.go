package session

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"unicode/utf8"

	"github.com/discharger/discharger/discharger/revocation"
)

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendParty(b []byte, p Party) []byte {
	a := p.Addr.Unmap().WithZone("").AsSlice()
	b = append(append(b, byte(len(a))), a...)
	return appendString(b, p.Client)
}

// flagIf returns a flag of a record if a condition holds.
func flagIf(cond bool, flag byte) byte {
	if cond {
		return flag
	}
	return 0
}

// decoder reads stored records. After the first error it returns zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail(cond bool) { d.bad = d.bad || cond }

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
	// The last byte of a minimal varint is only zero if it is the first one.
	if d.bad || n <= 0 || n > 1 && d.b[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// varint reads a signed integer in its minimal form.
func (d *decoder) varint() int64 {
	v := d.uvarint()
	d.fail(v >= 1<<44)
	if d.bad {
		return 0
	}
	return int64(v>>1) ^ -int64(v&1)
}

// millis reads a duration or a time below 2^53 ms.
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

// causeCodes are the stored numbers of causes. They never change.
var causeCodes = [...]revocation.Cause{
	0: revocation.CauseRevoked, 1: revocation.CauseLogout, 2: revocation.CauseReuse, 3: revocation.CausePolicy,
	4: revocation.CauseLimit, 5: revocation.CauseExpired, 6: revocation.CauseReplaced, 7: revocation.CauseLost,
}

// maxEndCode bounds Code in a stored record, in bytes, as package policy does.
const maxEndCode = 64

// appendEnd appends kind, cause and code of an end, but not the time:
//
//	1 byte   bit 7: soft; bit 6: a code follows; bits 0-5: cause
//	string   code, after its length
func appendEnd(b []byte, e revocation.End) []byte {
	head := byte(max(slices.Index(causeCodes[:], e.Cause), 0))
	if e.Soft {
		head |= 1 << 7
	}
	if e.Code == "" || len(e.Code) > maxEndCode {
		return append(b, head)
	}
	return appendString(append(b, head|1<<6), e.Code)
}

// end reads the form of appendEnd.
func (d *decoder) end() (e revocation.End) {
	head := d.byte()
	n := int(head & 0x3f)
	if n >= len(causeCodes) {
		d.bad = true
		return revocation.End{}
	}
	e.Soft, e.Cause = head&(1<<7) != 0, causeCodes[n]
	if head&(1<<6) != 0 {
		e.Code = d.string()
		d.fail(e.Code == "" || len(e.Code) > maxEndCode)
	}
	return e
}
