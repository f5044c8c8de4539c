package session

import (
	"encoding/binary"
	"net/netip"

	"github.com/discharger/discharger/discharger/clientname"
)

// Token is the content of a refresh token.
type Token struct {
	Epoch uint64
	Nonce Nonce
}

// Nonce distinguishes refresh tokens of one epoch: the time of issue, Unix ms,
// big-endian. In a session it strictly increases. Tokens of earlier versions have
// random bytes.
type Nonce [6]byte

// nonceAt returns the nonce of a token issued at a time in Unix ms.
func nonceAt(ms int64) (n Nonce) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(ms))
	copy(n[:], b[2:])
	return n
}

// issued returns the time of issue, Unix ms; 0: it is not within the bounds, so the
// bytes are random.
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
	At    int64 // of its first use, or of the report
}

// Successor is the newest refresh token that was issued for the confirmed one. Its
// epoch is one higher.
type Successor struct {
	Nonce    Nonce
	IssuedAt int64
	Tag      RequestTag // of the request that it answered; zero with Reported

	// Reported is the time of the first report that a discharge of its epoch is in
	// use, in whole seconds after Confirmed.At; 0: none.
	Reported int64
}

// RequestTag is a digest of a client's request id, with the lowest bit of the first
// byte set; zero: the request has none.
//
// The stored form has no field for Successor.Reported: it takes the place of the tag,
// with that bit clear. Earlier versions read it as a tag that no request has.
type RequestTag [4]byte

// report records that a discharge of the successor is in use.
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

// setTag sets the fields from the stored tag.
func (s *Successor) setTag(t RequestTag, c Confirmed) {
	if t[0] != reportedTag {
		s.Tag = t
		return
	}
	s.Reported = c.At + (int64(t[1])<<16|int64(t[2])<<8|int64(t[3]))*1000
}

const reportedTag = 0x02

// Party is the sender of a request. Client is the User-Agent in a request to the
// service, and otherwise its name from package clientname, or in a record of an
// earlier version the beginning of the User-Agent.
type Party struct {
	Addr   netip.Addr
	Client string
}

// MaxClient bounds a client's name in a record, in bytes.
const MaxClient = clientname.Max

// cut returns the party in the form of a record.
func (p Party) cut() Party {
	p.Addr = p.Addr.Unmap().WithZone("")
	p.Client = clientname.Cut(p.Client, MaxClient)
	return p
}

// Shown returns the party of a record with a current client name.
func (p Party) Shown() Party {
	p.Client = clientname.Stored(p.Client)
	return p
}

// by reports whether the event is from a party.
func (e *Event) by(p Party) bool {
	if p.Client != e.From.Client && clientname.Was(p.Client, e.Agent) {
		p.Client = e.From.Client // stored by an earlier version
	}
	return p.same(e.From.cut())
}

// same reports whether two parties are taken for one: the same client name, and the
// same IPv4 address or IPv6 /64, within which hosts change their address themselves.
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
