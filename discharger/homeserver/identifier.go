package homeserver

import (
	"encoding/binary"
	"time"
	"unicode/utf8"

	"github.com/discharger/discharger/discharger/caveat"
)

// The identifier of an access macaroon, as drawn in the package comment.
const (
	identifierVersion = 0x01
	payloadVersion    = 0x02 // with a payload

	modeAt    = 1
	keyIDAt   = modeAt + 1
	sessionAt = keyIDAt + 4
	mintedAt  = sessionAt + 16
	namesAt   = mintedAt + 6

	maxMinted = 1<<48 - 1

	maxDeviceBytes = utf8.UTFMax * caveat.MaxDevice
)

// MaxPayload is the greatest length of a payload, in bytes.
const MaxPayload = 2048

// identifier is a decoded identifier. User, device and payload share the memory of
// the encoded one.
type identifier struct {
	mode         caveat.Mode
	key          keyID
	session      caveat.SessionID
	minted       int64 // Unix ms, 0 to maxMinted
	user, device []byte
	payload      []byte // empty: none
}

func (id *identifier) append(b []byte) []byte {
	version := byte(identifierVersion)
	if len(id.payload) > 0 {
		version = payloadVersion
	}
	b = append(b, version, byte(id.mode))
	b = append(b, id.key[:]...)
	b = append(b, id.session[:]...)
	var minted [8]byte
	binary.BigEndian.PutUint64(minted[:], uint64(id.minted))
	b = append(b, minted[2:]...)
	b = binary.AppendUvarint(b, uint64(len(id.user)))
	b = append(b, id.user...)
	b = binary.AppendUvarint(b, uint64(len(id.device)))
	b = append(b, id.device...)
	if len(id.payload) > 0 {
		b = binary.AppendUvarint(b, uint64(len(id.payload)))
		b = append(b, id.payload...)
	}
	return b
}

// parseIdentifier decodes the format of append, and nothing else.
func parseIdentifier(b []byte) (id identifier, ok bool) {
	if len(b) < namesAt || b[0] != identifierVersion && b[0] != payloadVersion {
		return identifier{}, false
	}
	version := b[0]
	id.mode = caveat.Mode(b[modeAt])
	id.key = keyID(b[keyIDAt:])
	id.session = caveat.SessionID(b[sessionAt:])
	var minted [8]byte
	copy(minted[2:], b[mintedAt:namesAt])
	id.minted = int64(binary.BigEndian.Uint64(minted[:]))
	if id.user, b, ok = cutName(b[namesAt:], caveat.MaxUser); !ok {
		return identifier{}, false
	}
	if id.device, b, ok = cutName(b, maxDeviceBytes); !ok {
		return identifier{}, false
	}
	if version == payloadVersion {
		if id.payload, b, ok = cutName(b, MaxPayload); !ok || len(id.payload) == 0 {
			return identifier{}, false
		}
	}
	if len(b) > 0 || id.mode < caveat.ModeOpen || id.mode > caveat.ModeHeld || id.session == (caveat.SessionID{}) || len(id.user) == 0 {
		return identifier{}, false
	}
	return id, true
}

// cutName decodes a canonical length of one or two bytes, at most longest, and as many
// bytes.
func cutName(b []byte, longest int) (name, rest []byte, ok bool) {
	length, at := binary.Uvarint(b)
	if at <= 0 || at > 1 && length < 0x80 || length > uint64(longest) || length > uint64(len(b)-at) {
		return nil, nil, false
	}
	end := at + int(length)
	return b[at:end], b[end:], true
}

// identity returns the identity of the identifier. It shares no memory with it.
func (id *identifier) identity() Identity {
	return Identity{
		User: string(id.user), Device: string(id.device), Session: id.session, Mode: id.mode,
		Minted: time.UnixMilli(id.minted).UTC(), Payload: string(id.payload),
	}
}
