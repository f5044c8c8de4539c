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

// The prefixes of the gateway's tokens. They are fixed, so that scanners for
// leaked secrets can look for them.
const (
	PrefixHeld    = "dga_" // access token in mode held: an access macaroon
	PrefixRotate  = "dgb_" // access token in mode rotate: a bundle
	PrefixRefresh = "dgr_" // refresh token
)

const PrefixSize = len(PrefixHeld)

// Location is what the gateway's caveats call the service. No client looks at
// it, and it is the same wherever the service is, so that it can move.
const Location = "http://discharger"

// maxToken bounds what is looked at, in characters.
const maxToken = PrefixSize + bundle.MaxLength

var ErrInvalid = errors.New("not a token of this gateway, or damaged")

// Kind says what a token is.
type Kind uint8

const (
	Foreign Kind = iota // not the gateway's
	Held
	Rotate
	Refresh
)

// String names the kind as it is in metrics.
func (k Kind) String() string {
	switch k {
	case Held:
		return "held"
	case Rotate:
		return "rotate"
	case Refresh:
		return "refresh"
	}
	return "foreign"
}

func KindOf(token string) Kind {
	if len(token) < PrefixSize {
		return Foreign
	}
	switch token[:PrefixSize] {
	case PrefixHeld:
		return Held
	case PrefixRotate:
		return Rotate
	case PrefixRefresh:
		return Refresh
	}
	return Foreign
}

// Mode is the mode of the sessions that an access token of a kind is for.
func Mode(k Kind) caveat.Mode {
	if k == Held {
		return caveat.ModeHeld
	}
	return caveat.ModeRotate
}

// ParseAccess reads an access token strictly: of every token there is one text.
// Macaroons do not sign locations, so these have to be what they are here.
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

// ours reports whether a bundle has the form of those that are made here.
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

// shortestToken is shorter than any token of the gateway's, and longer than
// those that homeservers usually give out.
const shortestToken = 300

// WasOurs reports whether a token that is not the gateway's was one before its
// prefix was changed. It must not be passed on as if it were the homeserver's.
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

// AccessOf copies the access macaroon of a bundle.
func AccessOf(b *bundle.Bundle) (*macaroon.Macaroon, error) {
	m := new(macaroon.Macaroon)
	if err := m.UnmarshalBinary(b.Access.Append(nil)); err != nil {
		return nil, ErrInvalid
	}
	return m, nil
}

// EncodeHeld is the access token of a session in mode held.
func EncodeHeld(m *macaroon.Macaroon) (string, error) {
	text, err := bundle.Encode(macaroon.Slice{m})
	return checkedToken(PrefixHeld, text, err)
}

// EncodeRotate is the access token that a discharge in mode rotate makes.
func EncodeRotate(g client.Grant) (string, error) {
	text, err := g.Bundle()
	return checkedToken(PrefixRotate, text, err)
}

// checkedToken makes sure that what is handed out can be read.
func checkedToken(prefix, text string, err error) (string, error) {
	if err != nil {
		return "", fmt.Errorf("encode access token: %w", err)
	}
	if _, err := ParseAccess(prefix + text); err != nil {
		return "", fmt.Errorf("encode access token: %w", err)
	}
	return prefix + text, nil
}

// RefreshToken is what a refresh needs: clients send nothing else with it.
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

// smallestRefresh is smaller than any box of a refresh token, in bytes: an access
// macaroon with its caveat, and the service's refresh token.
const smallestRefresh = boxMinimum + 300

// DecodeRefresh reads one. Every error is errToken, or that of a key that is
// unknown or retired.
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
