package discharger

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/session"
)

// A refresh token is a macaroon in the V2 binary format, minted and verified only
// here and opaque to its holder, who may narrow it with first-party caveats:
//
//	identifier  0x01 | key id (4) | time of issue (6, Unix ms)
//	caveat      session <22 characters base64url>
//	caveat      epoch <n>
//	caveat      time-before <RFC 3339>       added by a holder
//	caveat      client-ip <address or CIDR>  added by a holder
//
// The root key is derived from the key of that id, the name of the homeserver and
// the identifier, so a token is never valid for another homeserver's session, and
// needs no record. Added caveats are copied to the successor: a narrowed token cannot
// be exchanged for a wide one.

// RefreshKey is a key that signs refresh tokens.
type RefreshKey struct{ secret.Key }

// NewRefreshKey returns a random key, read from random or, if that is nil, from
// crypto/rand.
func NewRefreshKey(random io.Reader) (RefreshKey, error) {
	if random == nil {
		random = rand.Reader
	}
	var k RefreshKey
	if _, err := io.ReadFull(random, k.Key[:]); err != nil {
		return RefreshKey{}, fmt.Errorf("draw refresh key: %w", err)
	}
	return k, nil
}

// ID returns the key id in tokens. It reveals nothing of the key.
func (k RefreshKey) ID() [4]byte { return keyfile.RefreshID(k.Key) }

const (
	tokenVersion = 0x01
	tokenIDLen   = 1 + 4 + len(session.Nonce{})

	maxToken        = 4 << 10 // bytes of a presented token
	maxTokenCaveats = 16
)

var (
	errTokenMalformed = errors.New("malformed refresh token")                     // bad request
	errTokenInvalid   = errors.New("refresh token is not valid for this session") // refusal
	errTokenRetired   = errors.New("refresh token is signed with a retired key")  // its session has ended
	errTokenKey       = errors.New("refresh token is signed with an unknown key") // undecided: another process may have the key
)

// tokenRing mints and verifies refresh tokens. The first key mints.
type tokenRing struct {
	keys    map[[4]byte]RefreshKey
	mint    [4]byte
	retired [][4]byte
}

func newTokenRing(keys []RefreshKey, retired [][4]byte) (*tokenRing, error) {
	if len(keys) == 0 {
		return nil, errors.New("no refresh-token key")
	}
	t := &tokenRing{keys: make(map[[4]byte]RefreshKey, len(keys)), mint: keys[0].ID(), retired: retired}
	for _, k := range keys {
		if _, dup := t.keys[k.ID()]; dup {
			return nil, fmt.Errorf("duplicate refresh-token key id %x", k.ID())
		}
		t.keys[k.ID()] = k
	}
	return t, nil
}

// tokenKey returns the root key of a token.
func tokenKey(key RefreshKey, homeserver string, id []byte) [rawmacaroon.Size]byte {
	root := rawmacaroon.Hash((*[rawmacaroon.Size]byte)(&key.Key), []byte("discharger refresh token\x00"),
		binary.AppendUvarint(nil, uint64(len(homeserver))), []byte(homeserver), id)
	return rawmacaroon.Key(root[:])
}

const (
	sessionCaveat = "session "
	epochCaveat   = "epoch "
)

// Mint returns a token of a session with extra caveats.
func (t *tokenRing) Mint(homeserver string, sid caveat.SessionID, tok session.Token, extra []string) []byte {
	id := make([]byte, 0, tokenIDLen)
	id = append(append(append(id, tokenVersion), t.mint[:]...), tok.Nonce[:]...)
	v := rawmacaroon.Macaroon{ID: id, Caveats: make([]rawmacaroon.Caveat, 0, 2+len(extra))}
	sig := tokenKey(t.keys[t.mint], homeserver, id)
	sig = rawmacaroon.Hash(&sig, id)
	add := func(condition []byte) {
		sig = rawmacaroon.Hash(&sig, condition)
		v.Caveats = append(v.Caveats, rawmacaroon.Caveat{ID: condition})
	}
	add([]byte(sessionCaveat + sid.String()))
	add(strconv.AppendUint([]byte(epochCaveat), tok.Epoch, 10))
	for _, c := range extra {
		add([]byte(c))
	}
	v.Signature = sig[:]
	return v.Append(make([]byte, 0, 160))
}

// presented is a verified token.
type presented struct {
	session.Token
	Extra  []string  // caveats that the holder added, which are met
	Before time.Time // the earliest time-before among them; zero: none
}

// Verify verifies a token against the session for which it is presented, and the
// caveats that its holder added.
func (t *tokenRing) Verify(b []byte, homeserver string, sid caveat.SessionID, now time.Time, from netip.Addr) (presented, error) {
	if len(b) > maxToken {
		return presented{}, errTokenMalformed
	}
	var m rawmacaroon.Macaroon
	var buf [4]rawmacaroon.Caveat
	rest, caveats, err := rawmacaroon.Parse(b, &m, buf[:0])
	if err != nil || len(rest) > 0 || len(m.ID) != tokenIDLen || m.ID[0] != tokenVersion ||
		len(caveats) < 2 || len(caveats) > maxTokenCaveats {
		return presented{}, errTokenMalformed
	}
	key, ok := t.keys[[4]byte(m.ID[1:5])]
	switch {
	case !ok && slices.Contains(t.retired, [4]byte(m.ID[1:5])):
		return presented{}, errTokenRetired
	case !ok:
		return presented{}, errTokenKey
	}
	sig := tokenKey(key, homeserver, m.ID)
	sig = rawmacaroon.Hash(&sig, m.ID)
	for i := range caveats {
		if caveats[i].ThirdParty() { // has no discharge here
			return presented{}, errTokenInvalid
		}
		sig = rawmacaroon.Hash(&sig, caveats[i].ID)
	}
	if !rawmacaroon.Equal(sig[:], m.Signature) {
		return presented{}, errTokenInvalid
	}
	// The signature protects the order, so the first two are those of Mint. A holder
	// cannot add another of their names: restrict refuses it.
	if string(caveats[0].ID) != sessionCaveat+sid.String() {
		return presented{}, errTokenInvalid
	}
	epoch, err := strconv.ParseUint(strings.TrimPrefix(string(caveats[1].ID), epochCaveat), 10, 63)
	if err != nil || epoch == 0 {
		return presented{}, errTokenInvalid
	}
	p := presented{Token: session.Token{Epoch: epoch, Nonce: session.Nonce(m.ID[5:])}}
	for _, c := range caveats[2:] {
		p.Extra = append(p.Extra, string(c.ID))
	}
	for _, c := range p.Extra {
		if err := p.restrict(c, now, from); err != nil {
			return presented{}, err
		}
	}
	return p, nil
}

// restrict verifies one caveat that the holder added.
func (p *presented) restrict(condition string, now time.Time, from netip.Addr) error {
	name, arg := rawmacaroon.CutCondition(condition)
	switch name {
	case rawmacaroon.CondTimeBefore:
		t, err := rawmacaroon.ParseTimeBefore(arg)
		if err != nil || !now.Before(t) {
			return errTokenInvalid
		}
		if p.Before.IsZero() || t.Before(p.Before) {
			p.Before = t
		}
	case rawmacaroon.CondClientIP:
		prefix, err := rawmacaroon.ParseClientIP(arg)
		if err != nil || !rawmacaroon.MatchClientIP(prefix, from) {
			return errTokenInvalid
		}
	default:
		return errTokenInvalid
	}
	return nil
}
