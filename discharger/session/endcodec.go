package session

import "github.com/discharger/discharger/discharger/revocation"

// causeCodes are the stored numbers of causes. They never change.
var causeCodes = [...]revocation.Cause{
	0: revocation.CauseRevoked, 1: revocation.CauseLogout, 2: revocation.CauseReuse, 3: revocation.CausePolicy, 4: revocation.CauseLimit, 5: revocation.CauseExpired, 6: revocation.CauseReplaced, 7: revocation.CauseLost,
}

// maxEndCode bounds Code in a stored record, in bytes. Policies are held to
// the same bound.
const maxEndCode = 64

// appendEnd appends kind, cause and code, but not the time:
//
//	1 byte   bit 7: soft; bit 6: a code follows; the rest is the cause
//	string   the code, with its length first
func appendEnd(b []byte, e revocation.End) []byte {
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
