package session

import (
	"net/netip"

	"github.com/discharger/discharger/discharger/clientname"
)

// Party is who presented a request: address and client. In a [discharger.Request], Client is
// the User-Agent. Everywhere else it is the name that package clientname makes of
// it, or in a record of an earlier version the beginning of the User-Agent.
type Party struct {
	Addr   netip.Addr
	Client string
}

// MaxClient is how many bytes a client's name has in a record, at most.
const MaxClient = clientname.Max

// cut returns the party as a record keeps it.
func (p Party) cut() Party {
	p.Addr = p.Addr.Unmap().WithZone("")
	p.Client = clientname.Cut(p.Client, MaxClient)
	return p
}

// shown returns the party of a record as people read it.
func (p Party) Shown() Party {
	p.Client = clientname.Stored(p.Client)
	return p
}

// by reports whether a party looks like the event's.
func (e *Event) by(p Party) bool {
	if p.Client != e.From.Client && clientname.Was(p.Client, e.Agent) {
		p.Client = e.From.Client // stored by an earlier version
	}
	return p.same(e.From.cut())
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
