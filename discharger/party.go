package discharger

import "net/netip"

// Party is who presented a request: address and User-Agent. Client is cut to
// MaxClient bytes.
type Party struct {
	Addr   netip.Addr
	Client string
}

// MaxClient is how many bytes of a User-Agent a record keeps. It is enough to
// tell devices apart and keeps a session within two pieces of a Redis hash.
const MaxClient = 40

// cut returns the party as a record keeps it.
func (p Party) cut() Party {
	p.Addr = p.Addr.Unmap().WithZone("")
	p.Client = cutText(p.Client, MaxClient)
	return p
}

// cutText returns the beginning of s, at most n bytes and whole characters.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 { // in the middle of one
		n--
	}
	return s[:n]
}

// same reports whether two parties look like one: the same client from the
// same IPv4 address or IPv6 /64, within which hosts change their address by
// themselves.
func (p Party) same(q Party) bool {
	if p.Client != q.Client || p.Addr.Is4() != q.Addr.Is4() || p.Addr.IsValid() != q.Addr.IsValid() {
		return false
	}
	bits := 64
	if p.Addr.Is4() {
		bits = 32
	}
	return !p.Addr.IsValid() || netip.PrefixFrom(p.Addr, bits).Contains(q.Addr)
}
