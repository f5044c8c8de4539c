// Package token encodes the tokens that the gateway issues to Matrix clients,
// and narrows them.
//
// The prefix of a token is its kind. Prefixes are fixed, so that scanners for
// leaked secrets find tokens.
//
//	dga_  access token, mode held: the access macaroon alone, in the standard
//	      form of a bundle. The gateway fetches and keeps its discharges.
//	dgb_  access token, mode rotate: access macaroon and discharge, as a compact
//	      bundle. It expires with the discharge.
//	dgr_  refresh token: the access macaroon and the service's refresh token,
//	      sealed. A refresh needs nothing else.
//
// Parsing is strict: every token has exactly one text. [Sealer.WasOurs] detects a token
// whose prefix was changed, so that it is never passed on as one of the homeserver's.
//
// # Sealing
//
// [Sealer] encrypts the homeserver's own token inside the access macaroon, and the
// contents of a refresh token, with XChaCha20-Poly1305. Each purpose has a key of its
// own, derived from the gateway's master key. The homeserver's token is bound to its
// session. A box is
//
//	0   id of the master key                      4 bytes
//	4   nonce                                    24 bytes
//	28  ciphertext and tag
//
// The nonce is derived from the contents, so equal contents make equal boxes: a client
// that repeats a request receives the same token.
//
// # Attenuation
//
// [Attenuate] adds conditions to a dga_ token, without any request:
//
//	time-before T   until a time, RFC 3339
//	client-ip A     from an address or a CIDR only
//	read-only       for reading
//	room !id        in one room
//
// Conditions only ever narrow. A token with an unknown condition, with more than 16
// conditions, or with one of more than 512 bytes is refused.
package token

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// The prefixes of the gateway's tokens.
const (
	PrefixHeld    = "dga_" // access token in mode held: an access macaroon
	PrefixRotate  = "dgb_" // access token in mode rotate: a bundle
	PrefixRefresh = "dgr_" // refresh token
)

// PrefixSize is the length of each prefix.
const PrefixSize = len(PrefixHeld)

// Location is the location of the gateway's third-party caveats. No client reads it. It
// is constant, so that the service can move.
const Location = "http://discharger"

// maxToken bounds the tokens that are parsed, in characters.
const maxToken = PrefixSize + bundle.MaxLength

// ErrInvalid is returned for a token that is not in the form of the gateway's.
var ErrInvalid = errors.New("not a token of this gateway, or damaged")

// Kind is the kind of a token.
type Kind uint8

// The kinds.
const (
	Foreign Kind = iota // not the gateway's
	Held
	Rotate
	Refresh
)

// String returns the label of the kind in metrics.
func (k Kind) String() string {
	return [...]string{Foreign: "foreign", Held: "held", Rotate: "rotate", Refresh: "refresh"}[k]
}

// KindOf returns the kind of a token by its prefix.
func KindOf(token string) Kind {
	switch {
	case strings.HasPrefix(token, PrefixHeld):
		return Held
	case strings.HasPrefix(token, PrefixRotate):
		return Rotate
	case strings.HasPrefix(token, PrefixRefresh):
		return Refresh
	}
	return Foreign
}

// Mode returns the mode of the sessions of an access token.
func Mode(k Kind) caveat.Mode {
	if k == Held {
		return caveat.ModeHeld
	}
	return caveat.ModeRotate
}

// ParseAccess parses an access token strictly: every token has one text. The error is
// [ErrInvalid]. Macaroons do not sign locations, so only the gateway's are accepted.
func ParseAccess(token string) (*bundle.Bundle, error) {
	k := KindOf(token)
	if len(token) > maxToken || k != Held && k != Rotate {
		return nil, ErrInvalid
	}
	b, err := bundle.Parse(token[PrefixSize:])
	if err != nil {
		return nil, ErrInvalid
	}
	if !ours(b) || k == Held && (b.Compact || len(b.Discharges) != 0) || k == Rotate && (!b.Compact || len(b.Discharges) != 1) {
		return nil, ErrInvalid
	}
	return b, nil
}

// ours reports whether a bundle has the locations of the gateway's.
func ours(b *bundle.Bundle) bool {
	if len(b.Access.Location) > 0 || len(b.Access.Caveats) == 0 || string(b.Access.Caveats[0].Location) != Location {
		return false
	}
	for i := range b.Discharges {
		if len(b.Discharges[i].Location) > 0 {
			return false
		}
	}
	return true
}

// shortestToken is shorter than any token of the gateway, and longer than the usual
// tokens of homeservers.
const shortestToken = 300

// WasOurs reports whether a foreign token is a token of the gateway with a changed
// prefix. Such a token must not be passed on.
func (s *Sealer) WasOurs(token string) bool {
	if len(token) < shortestToken || len(token) > maxToken {
		return false
	}
	for at := range PrefixSize + 2 {
		rest := token[min(at, len(token)):]
		if in, err := homeserver.Inspect(rest); err == nil && in.Ours {
			return true
		}
		if box, err := wire.DecodeBase64(rest); err != nil {
			continue
		} else if _, err := s.openRefresh(box); err == nil {
			return true
		}
	}
	return false
}

// AccessOf returns a copy of the access macaroon of a bundle.
func AccessOf(b *bundle.Bundle) (*macaroon.Macaroon, error) {
	m := new(macaroon.Macaroon)
	if err := m.UnmarshalBinary(b.Access.Append(nil)); err != nil {
		return nil, ErrInvalid
	}
	return m, nil
}

// EncodeHeld returns the access token of a session in mode held.
func EncodeHeld(m *macaroon.Macaroon) (string, error) {
	text, err := bundle.Encode(macaroon.Slice{m})
	return checkedToken(PrefixHeld, text, err)
}

// EncodeRotate returns the access token of a discharge in mode rotate.
func EncodeRotate(g client.Grant) (string, error) {
	text, err := g.Bundle()
	return checkedToken(PrefixRotate, text, err)
}

// checkedToken returns a token that [ParseAccess] accepts.
func checkedToken(prefix, text string, err error) (string, error) {
	if err != nil {
		return "", fmt.Errorf("encode access token: %w", err)
	}
	if _, err := ParseAccess(prefix + text); err != nil {
		return "", fmt.Errorf("encode access token: %w", err)
	}
	return prefix + text, nil
}

// RefreshToken is the contents of a refresh token. A refresh needs nothing else.
type RefreshToken struct {
	Access *macaroon.Macaroon
	Token  client.RefreshToken
}

// EncodeRefresh seals a refresh token.
func (s *Sealer) EncodeRefresh(t RefreshToken) (string, error) {
	access, err := t.Access.MarshalBinary()
	if err != nil {
		return "", fmt.Errorf("encode refresh token: %w", err)
	}
	token, err := wire.DecodeBase64(string(t.Token))
	if err != nil {
		return "", fmt.Errorf("encode refresh token: %w", err)
	}
	text := binary.AppendUvarint(nil, uint64(len(access)))
	text = append(append(text, access...), token...)
	return PrefixRefresh + wire.EncodeBase64(s.SealRefresh(text)), nil
}

// smallestRefresh is less than the size of any box of a refresh token, in bytes.
const smallestRefresh = boxMinimum + 300

// DecodeRefresh opens a refresh token. The error is [ErrInvalid], or matches
// [homeserver.ErrUnknownKey] or [homeserver.ErrRetiredKey].
func (s *Sealer) DecodeRefresh(text string) (RefreshToken, error) {
	if KindOf(text) != Refresh || len(text) > maxToken || strings.ContainsAny(text, "+/=") {
		return RefreshToken{}, ErrInvalid
	}
	box, err := wire.DecodeBase64(text[PrefixSize:])
	if err != nil || len(box) < smallestRefresh {
		return RefreshToken{}, ErrInvalid
	}
	plain, err := s.openRefresh(box)
	switch {
	case errors.Is(err, errBox):
		return RefreshToken{}, ErrInvalid
	case err != nil:
		return RefreshToken{}, err
	}
	length, at := binary.Uvarint(plain)
	if at <= 0 || length > uint64(len(plain)-at) {
		return RefreshToken{}, ErrInvalid
	}
	access, token := plain[at:at+int(length)], plain[at+int(length):]
	t := RefreshToken{Access: new(macaroon.Macaroon)}
	if err := t.Access.UnmarshalBinary(access); err != nil {
		return RefreshToken{}, ErrInvalid
	}
	if t.Token, err = client.ParseRefreshToken(wire.EncodeBase64(token)); err != nil {
		return RefreshToken{}, ErrInvalid
	}
	return t, nil
}
