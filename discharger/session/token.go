package session

import (
	"encoding/binary"
	"net/netip"

	"github.com/discharger/discharger/discharger/clientname"
)

// Token is what a refresh token says about itself.
type Token struct {
	Epoch uint64
	Nonce Nonce
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
