package homeserver

import (
	"encoding/binary"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// The identifier of an access macaroon, as drawn in the package comment.
const (
	identifierVersion = 0x01

	modeAt    = 1
	keyIDAt   = modeAt + 1
	sessionAt = keyIDAt + 4
	mintedAt  = sessionAt + 16
	namesAt   = mintedAt + 6

	maxMinted = 1<<48 - 1
	maxName   = 255 // user and device
)

// identifier is a decoded identifier. User and device share its memory.
type identifier struct {
	mode         caveat.Mode
	key          keyID
	session      caveat.SessionID
	minted       int64 // Unix ms, 0 to maxMinted
	user, device []byte
}

func (id *identifier) append(b []byte) []byte {
	b = append(b, identifierVersion, byte(id.mode))
	b = append(b, id.key[:]...)
	b = append(b, id.session[:]...)
	var minted [8]byte
	binary.BigEndian.PutUint64(minted[:], uint64(id.minted))
	b = append(b, minted[2:]...)
	b = binary.AppendUvarint(b, uint64(len(id.user)))
	b = append(b, id.user...)
	b = binary.AppendUvarint(b, uint64(len(id.device)))
	return append(b, id.device...)
}

// parseIdentifier reads what append writes and nothing else.
func parseIdentifier(b []byte) (id identifier, ok bool) {
	if len(b) < namesAt || b[0] != identifierVersion {
		return identifier{}, false
	}
	id.mode = caveat.Mode(b[modeAt])
	id.key = keyID(b[keyIDAt:])
	id.session = caveat.SessionID(b[sessionAt:])
	var minted [8]byte
	copy(minted[2:], b[mintedAt:namesAt])
	id.minted = int64(binary.BigEndian.Uint64(minted[:]))
	if id.user, b, ok = cutName(b[namesAt:]); !ok {
		return identifier{}, false
	}
	if id.device, b, ok = cutName(b); !ok || len(b) > 0 {
		return identifier{}, false
	}
	if id.mode < caveat.ModeOpen || id.mode > caveat.ModeHeld || id.session == (caveat.SessionID{}) || len(id.user) == 0 {
		return identifier{}, false
	}
	return id, true
}

// cutName reads a length, which takes two bytes from 128 on and ends at 255,
// and as many bytes.
func cutName(b []byte) (name, rest []byte, ok bool) {
	if len(b) == 0 {
		return nil, nil, false
	}
	length, at := int(b[0]), 1
	if length >= 0x80 {
		if len(b) < 2 || b[1] != 1 {
			return nil, nil, false
		}
		at = 2
	}
	if length > len(b)-at {
		return nil, nil, false
	}
	return b[at : at+length], b[at+length:], true
}

// identity is what the identifier says to a caller. It shares no memory.
func (id *identifier) identity() Identity {
	return Identity{
		User:    string(id.user),
		Device:  string(id.device),
		Session: id.session,
		Mode:    id.mode,
		Minted:  time.UnixMilli(id.minted).UTC(),
	}
}
