package token

import (
	"errors"
	"fmt"

	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Names of the conditions that a holder can add to a token in mode held, beside
// time-before and client-ip; see the package comment.
const (
	CondReadOnly = "read-only" // no argument
	CondRoom     = "room"      // a room id
)

// ValidRoom reports whether a text has the form of a room id.
func ValidRoom(id string) bool {
	return len(id) > 1 && len(id) <= 255 && id[0] == '!'
}

// Bounds of the conditions that holders add to a token. A token beyond them is refused.
const (
	MaxConditions = 16  // of a token
	MaxCondition  = 512 // bytes of a condition
)

// Attenuate returns a narrowed token: it is valid for the same requests as the given one,
// where every condition holds. The conditions are those of the package comment;
// [rawmacaroon.TimeBefore] and [rawmacaroon.ClientIP] write two of them. The given token
// is in mode held, begins with [PrefixHeld], and stays valid. Attenuate makes no request.
func Attenuate(token string, conditions ...string) (string, error) {
	switch KindOf(token) {
	case Held:
	case Rotate, Refresh:
		return "", errors.New("attenuate: tokens of a client with refresh tokens cannot be narrowed; log in without refresh_token")
	default:
		return "", errors.New("attenuate: not a token of a gateway")
	}
	b, err := ParseAccess(token)
	if err != nil {
		return "", fmt.Errorf("attenuate: %w", err)
	}
	m, err := AccessOf(b)
	if err != nil {
		return "", fmt.Errorf("attenuate: %w", err)
	}
	if n := len(m.Caveats()) - 1 + len(conditions); n > MaxConditions {
		return "", fmt.Errorf("attenuate: %d conditions, more than %d", n, MaxConditions)
	}
	for _, c := range conditions {
		if err := validCondition(c); err != nil {
			return "", fmt.Errorf("attenuate with %q: %w", c, err)
		}
		if err := m.AddFirstPartyCaveat([]byte(c)); err != nil {
			return "", fmt.Errorf("attenuate: %w", err)
		}
	}
	return EncodeHeld(m)
}

// validCondition returns an error for a condition that gateways do not accept. A token
// with such a condition would be refused everywhere.
func validCondition(condition string) error {
	name, arg := rawmacaroon.CutCondition(condition)
	var err error
	switch {
	case name == rawmacaroon.CondTimeBefore:
		_, err = rawmacaroon.ParseTimeBefore(arg)
	case name == rawmacaroon.CondClientIP:
		_, err = rawmacaroon.ParseClientIP(arg)
	case condition == CondReadOnly:
	case name == CondRoom:
		if !ValidRoom(arg) {
			err = errors.New("room id is invalid, want one such as !abc:example.org")
		}
	default:
		err = errors.New("condition is unknown")
	}
	return err
}
