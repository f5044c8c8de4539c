package client

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/wire"
)

// RefreshToken is a refresh token in its form on the wire: a macaroon in the V2
// binary format, in base64, URL alphabet, unpadded. It is redacted where it is
// printed, logged and marshaled; string(t) is the text. The zero value is no token.
type RefreshToken string

// MaxRefreshToken is the greatest length of a refresh token, in characters.
const MaxRefreshToken = 4 << 10

// Format writes REDACTED, for every verb.
func (RefreshToken) Format(s fmt.State, _ rune) { io.WriteString(s, secret.Redacted) }

// String returns REDACTED.
func (RefreshToken) String() string { return secret.Redacted }

// LogValue returns REDACTED.
func (RefreshToken) LogValue() slog.Value { return slog.StringValue(secret.Redacted) }

// MarshalText returns REDACTED.
func (RefreshToken) MarshalText() ([]byte, error) { return []byte(secret.Redacted), nil }

var errToken = errors.New("malformed refresh token")

// ParseRefreshToken checks the form of a refresh token. Only the service can check
// the rest.
func ParseRefreshToken(text string) (RefreshToken, error) {
	if _, err := decodeToken(text); err != nil {
		return "", err
	}
	return RefreshToken(text), nil
}

// Attenuate returns a narrower token, which works only where the given conditions
// hold, those of [rawmacaroon.TimeBefore] and [rawmacaroon.ClientIP]. They are in every
// token derived from this one, and no discharge outlives its token.
func (t RefreshToken) Attenuate(conditions ...string) (RefreshToken, error) {
	m, err := decodeToken(string(t))
	if err != nil {
		return "", err
	}
	for _, c := range conditions {
		if err := checkRestriction(c); err != nil {
			return "", fmt.Errorf("attenuate refresh token with %q: %w", c, err)
		}
		if err := m.AddFirstPartyCaveat([]byte(c)); err != nil {
			return "", fmt.Errorf("attenuate refresh token: %w", err)
		}
	}
	data, err := m.MarshalBinary()
	if err != nil {
		return "", fmt.Errorf("attenuate refresh token: %w", err)
	}
	text := wire.EncodeBase64(data)
	if len(text) > MaxRefreshToken {
		return "", errors.New("attenuate refresh token: result is too long")
	}
	return RefreshToken(text), nil
}

// checkRestriction rejects conditions that would make the token unusable.
func checkRestriction(condition string) (err error) {
	switch name, arg := rawmacaroon.CutCondition(condition); name {
	case rawmacaroon.CondTimeBefore:
		_, err = rawmacaroon.ParseTimeBefore(arg)
	case rawmacaroon.CondClientIP:
		_, err = rawmacaroon.ParseClientIP(arg)
	default:
		err = errors.New("restriction is unknown")
	}
	return err
}

// decodeToken parses a token strictly.
func decodeToken(text string) (*macaroon.Macaroon, error) {
	if len(text) > MaxRefreshToken {
		return nil, errToken
	}
	b, err := bundle.Parse(text)
	if err != nil || b.Compact || len(b.Discharges) > 0 {
		return nil, errToken
	}
	if slices.ContainsFunc(b.Access.Caveats, func(c rawmacaroon.Caveat) bool { return c.ThirdParty() }) {
		return nil, errToken
	}
	s, err := b.Macaroons()
	if err != nil {
		return nil, errToken
	}
	return s[0], nil
}
