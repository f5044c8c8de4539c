package gateway

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

const prefixSize = len(PrefixHeld)

// location is what the gateway's caveats call the service. No client looks at
// it, and it is the same wherever the service is, so that it can move.
const location = "http://discharger"

// maxToken bounds what is looked at, in characters.
const maxToken = prefixSize + bundle.MaxLength

var errToken = errors.New("not a token of this gateway, or damaged")

// kind says what a token is.
type kind uint8

const (
	kindForeign kind = iota // not the gateway's
	kindHeld
	kindRotate
	kindRefresh
)

// String names the kind as it is in metrics.
func (k kind) String() string {
	switch k {
	case kindHeld:
		return "held"
	case kindRotate:
		return "rotate"
	case kindRefresh:
		return "refresh"
	}
	return "foreign"
}

func kindOf(token string) kind {
	if len(token) < prefixSize {
		return kindForeign
	}
	switch token[:prefixSize] {
	case PrefixHeld:
		return kindHeld
	case PrefixRotate:
		return kindRotate
	case PrefixRefresh:
		return kindRefresh
	}
	return kindForeign
}

// modeOf is the mode of the sessions that an access token of a kind is for.
func modeOf(k kind) caveat.Mode {
	if k == kindHeld {
		return caveat.ModeHeld
	}
	return caveat.ModeRotate
}

// parseAccess reads an access token strictly: of every token there is one text.
// Macaroons do not sign locations, so these have to be what they are here.
func parseAccess(token string) (*bundle.Bundle, error) {
	k := kindOf(token)
	if len(token) > maxToken || k != kindHeld && k != kindRotate {
		return nil, errToken
	}
	b, err := bundle.Parse(token[prefixSize:])
	if err != nil {
		return nil, errToken
	}
	if !ours(b) || k == kindHeld && (b.Compact || len(b.Discharges) != 0) || k == kindRotate && (!b.Compact || len(b.Discharges) != 1) {
		return nil, errToken
	}
	return b, nil
}

// ours reports whether a bundle has the form of those that are made here.
func ours(b *bundle.Bundle) bool {
	if len(b.Access.Location) > 0 || len(b.Access.Caveats) == 0 || string(b.Access.Caveats[0].Location) != location {
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

// damaged reports whether a token that is not the gateway's was one before its
// prefix was changed. It must not be passed on as if it were the homeserver's.
func (s *sealer) damaged(token string) bool {
	if len(token) < shortestToken || len(token) > maxToken {
		return false
	}
	for at := range prefixSize + 2 {
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

// accessOf copies the access macaroon of a bundle.
func accessOf(b *bundle.Bundle) (*macaroon.Macaroon, error) {
	m := new(macaroon.Macaroon)
	if err := m.UnmarshalBinary(b.Access.Append(nil)); err != nil {
		return nil, errToken
	}
	return m, nil
}

// heldToken is the access token of a session in mode held.
func heldToken(m *macaroon.Macaroon) (string, error) {
	text, err := bundle.Encode(macaroon.Slice{m})
	return checkedToken(PrefixHeld, text, err)
}

// rotateToken is the access token that a discharge in mode rotate makes.
func rotateToken(g client.Grant) (string, error) {
	text, err := g.Bundle()
	return checkedToken(PrefixRotate, text, err)
}

// checkedToken makes sure that what is handed out can be read.
func checkedToken(prefix, text string, err error) (string, error) {
	if err != nil {
		return "", fmt.Errorf("encode access token: %w", err)
	}
	if _, err := parseAccess(prefix + text); err != nil {
		return "", fmt.Errorf("encode access token: %w", err)
	}
	return prefix + text, nil
}

// refreshToken is what a refresh needs: clients send nothing else with it.
type refreshToken struct {
	access *macaroon.Macaroon
	token  client.RefreshToken
}

// encodeRefresh seals a refresh token.
func (s *sealer) encodeRefresh(t refreshToken) (string, error) {
	access, err := t.access.MarshalBinary()
	if err != nil {
		return "", fmt.Errorf("encode refresh token: %w", err)
	}
	token, err := wire.DecodeBase64(string(t.token))
	if err != nil {
		return "", fmt.Errorf("encode refresh token: %w", err)
	}
	text := binary.AppendUvarint(nil, uint64(len(access)))
	text = append(append(text, access...), token...)
	return PrefixRefresh + wire.EncodeBase64(s.sealRefresh(text)), nil
}

// smallestRefresh is smaller than any box of a refresh token, in bytes: an access
// macaroon with its caveat, and the service's refresh token.
const smallestRefresh = boxMinimum + 300

// decodeRefresh reads one. Every error is errToken, or that of a key that is
// unknown or retired.
func (s *sealer) decodeRefresh(text string) (refreshToken, error) {
	if kindOf(text) != kindRefresh || len(text) > maxToken || strings.ContainsAny(text, "+/=") {
		return refreshToken{}, errToken
	}
	box, err := wire.DecodeBase64(text[prefixSize:])
	if err != nil || len(box) < smallestRefresh {
		return refreshToken{}, errToken
	}
	plain, err := s.openRefresh(box)
	switch {
	case errors.Is(err, errBox):
		return refreshToken{}, errToken
	case err != nil:
		return refreshToken{}, err
	}
	length, at := binary.Uvarint(plain)
	if at <= 0 || length > uint64(len(plain)-at) {
		return refreshToken{}, errToken
	}
	access, token := plain[at:at+int(length)], plain[at+int(length):]
	t := refreshToken{access: new(macaroon.Macaroon)}
	if err := t.access.UnmarshalBinary(access); err != nil {
		return refreshToken{}, errToken
	}
	if t.token, err = client.ParseRefreshToken(wire.EncodeBase64(token)); err != nil {
		return refreshToken{}, errToken
	}
	return t, nil
}
