package caveat

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
)

// SessionID identifies a session: 128 random bits. The zero value is no session, and
// a [Condition] with it is malformed.
type SessionID [16]byte

// sessionIDLen is the length of the text form.
const sessionIDLen = 22

// dash is the value that base64url encodes as "-".
const dash = 62

// NewSessionID returns a random id. Its text form does not begin with "-", so that
// it can be an argument of a command.
func NewSessionID() SessionID {
	var id SessionID
	rand.Read(id[:]) // never fails
	return withoutDash(id)
}

// withoutDash returns an id whose text form does not begin with "-".
func withoutDash(id SessionID) SessionID {
	if id[0]>>2 == dash {
		id[0] ^= 0x80
	}
	return id
}

// ParseSessionID decodes the text of String, and no other spelling.
func ParseSessionID(s string) (SessionID, error) {
	if len(s) != sessionIDLen {
		return SessionID{}, fmt.Errorf("session id has %d characters, want %d", len(s), sessionIDLen)
	}
	var buf [sessionIDLen]byte
	n, err := base64.RawURLEncoding.Strict().Decode(buf[:], []byte(s))
	if err != nil || n != len(SessionID{}) {
		return SessionID{}, errors.New("session id is not base64url")
	}
	return SessionID(buf[:n]), nil
}

// String returns the id in base64url without padding: 22 characters.
func (id SessionID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// MarshalText is String.
func (id SessionID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText decodes like [ParseSessionID]. On error the id is unchanged.
func (id *SessionID) UnmarshalText(text []byte) error {
	parsed, err := ParseSessionID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
