package caveat

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
)

// SessionID names a session: 128 random bits. The zero value is none, and a
// [Condition] with it is refused.
type SessionID [16]byte

// sessionIDLen is the length of the text form.
const sessionIDLen = 22

// dash is what six bits are that base64url writes as "-".
const dash = 62

// NewSessionID draws an id from random; nil is crypto/rand. Its text form does
// not begin with "-": people hand ids to commands, which would take that for a
// flag.
func NewSessionID(random io.Reader) (SessionID, error) {
	if random == nil {
		random = rand.Reader
	}
	var id SessionID
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return SessionID{}, fmt.Errorf("draw session id: %w", err)
	}
	if id[0]>>2 == dash {
		id[0] ^= 0x80
	}
	return id, nil
}

// ParseSessionID reads what String gives, and no other spelling of it.
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

// String gives the id in base64url without padding: 22 characters.
func (id SessionID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// MarshalText gives what String gives.
func (id SessionID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [ParseSessionID] reads. On error the id is left as
// it was.
func (id *SessionID) UnmarshalText(text []byte) error {
	parsed, err := ParseSessionID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
