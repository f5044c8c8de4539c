package token

import (
	"errors"
	"fmt"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Bounds of what holders add to a token. One that is beyond them is refused.
const (
	MaxConditions = 16  // of a token
	MaxCondition  = 512 // bytes of a condition
)

// Attenuate gives a narrower token: what it may be used for is what the given
// one may, and only where every condition holds. The conditions are those of
// the package comment; [rawmacaroon.TimeBefore] and [rawmacaroon.ClientIP] write two of
// them. It works for tokens in mode held, which begin with [PrefixHeld], and
// asks nobody. The token that was narrowed stays as it is.
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
	text, err := bundle.Encode(macaroon.Slice{m})
	return checkedToken(PrefixHeld, text, err)
}

// validCondition accepts what a gateway understands. With anything else added,
// a token is good for nothing.
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
			err = errors.New("want the id of a room, such as !abc:example.org")
		}
	default:
		err = errors.New("no gateway knows such a condition")
	}
	return err
}
