package client

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

const redacted = "REDACTED"

// RefreshToken is a refresh token as it travels: a macaroon in the V2 binary
// format, in base64, URL alphabet, unpadded. It prints, logs and marshals as
// REDACTED; string(t) is the text. The zero value is no token.
type RefreshToken string

// MaxRefreshToken is the greatest length of a refresh token, in characters.
const MaxRefreshToken = 4 << 10

// String gives REDACTED.
func (RefreshToken) String() string { return redacted }

// GoString gives REDACTED.
func (RefreshToken) GoString() string { return redacted }

// Format writes REDACTED, whatever the verb.
func (RefreshToken) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// LogValue gives REDACTED.
func (RefreshToken) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText gives REDACTED, to encoding/json too.
func (RefreshToken) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// ParseRefreshToken checks that a text has the form of a refresh token. That it
// is a good one, only the service can tell.
func ParseRefreshToken(text string) (RefreshToken, error) {
	if _, err := decodeToken(text); err != nil {
		return "", err
	}
	return RefreshToken(text), nil
}

// Attenuate gives a narrower token: it works only where the given conditions
// hold too, which are those of [rawmacaroon.TimeBefore] and [rawmacaroon.ClientIP]. The service puts
// them into every token that comes from this one, and no discharge outlives
// its token. The token that was narrowed stays as it is.
func (t RefreshToken) Attenuate(conditions ...string) (RefreshToken, error) {
	data, err := decodeToken(string(t))
	if err != nil {
		return "", err
	}
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(data); err != nil {
		return "", errToken
	}
	for _, c := range conditions {
		if err := checkRestriction(c); err != nil {
			return "", fmt.Errorf("attenuate refresh token with %q: %w", c, err)
		}
		if err := m.AddFirstPartyCaveat([]byte(c)); err != nil {
			return "", fmt.Errorf("attenuate refresh token: %w", err)
		}
	}
	if data, err = m.MarshalBinary(); err != nil {
		return "", fmt.Errorf("attenuate refresh token: %w", err)
	}
	text := wire.EncodeBase64(data)
	if len(text) > MaxRefreshToken {
		return "", errors.New("attenuate refresh token: it would be too long")
	}
	return RefreshToken(text), nil
}

// checkRestriction accepts what the service understands. With anything else
// added, a token is good for nothing.
func checkRestriction(condition string) error {
	name, arg := rawmacaroon.CutCondition(condition)
	var err error
	switch name {
	case rawmacaroon.CondTimeBefore:
		_, err = rawmacaroon.ParseTimeBefore(arg)
	case rawmacaroon.CondClientIP:
		_, err = rawmacaroon.ParseClientIP(arg)
	default:
		err = errors.New("the service knows no such restriction")
	}
	return err
}

var errToken = errors.New("not a refresh token")

// decodeToken checks a token's form strictly and gives its bytes.
func decodeToken(text string) ([]byte, error) {
	if len(text) > MaxRefreshToken {
		return nil, errToken
	}
	b, err := bundle.Parse(text)
	if err != nil || b.Compact || len(b.Discharges) > 0 {
		return nil, errToken
	}
	for i := range b.Access.Caveats {
		if b.Access.Caveats[i].ThirdParty() {
			return nil, errToken
		}
	}
	return b.Access.Append(nil), nil
}
