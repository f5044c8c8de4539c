package homeserver

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
)

// MintParams is one login. User and Mode are required.
type MintParams struct {
	User    string            // as the homeserver names it: 1 to 255 bytes
	Device  string            // likewise: up to 512 characters; may be empty
	Mode    caveat.Mode       // who may fetch discharges
	Policy  string            // which policy applies; empty: the homeserver's own
	MaxTTL  time.Duration     // no discharge lives longer; whole seconds; 0: as the service has it
	Expires time.Time         // the session ends here in any case; zero: as the service has it
	Labels  map[string]string // for policies
	Version caveat.Version    // encoding of the caveat; 0: V2, the one that is smallest
	Session caveat.SessionID  // to be drawn by [caveat.NewSessionID]; zero: Mint draws it
	Payload []byte            // goes into the identifier, for all holders to read; up to MaxPayload; empty: none
}

// Minted is a new access macaroon, with what it says. The macaroon is what the
// client gets; whoever has it can ask for discharges, as far as the mode lets
// them.
type Minted struct {
	Macaroon  *macaroon.Macaroon
	Session   caveat.SessionID
	Condition caveat.Condition
}

// Text gives the access macaroon as a text, in the form of a bundle without
// discharges.
func (m Minted) Text() (string, error) { return bundle.Encode(macaroon.Slice{m.Macaroon}) }

// rootKeySize is that of the caveat's root key, as the bakery has it.
const rootKeySize = 24

// Mint makes an access macaroon of a new session. The discharger learns of the
// session when the caveat is discharged for the first time, which has to happen
// within its activation window, counted from now.
func (h *Homeserver) Mint(p MintParams) (Minted, error) {
	if p.Version == 0 {
		p.Version = caveat.V2
	}
	ring := h.ring.Load()
	sealer, ok := ring.sealers[p.Version]
	if !ok {
		return Minted{}, fmt.Errorf("mint: unknown version %d of caveats", p.Version)
	}
	if len(p.Payload) > MaxPayload {
		return Minted{}, fmt.Errorf("mint: payload of %d bytes, more than %d", len(p.Payload), MaxPayload)
	}
	session := p.Session
	if session == (caveat.SessionID{}) {
		var err error
		if session, err = caveat.NewSessionID(h.cfg.Rand); err != nil {
			return Minted{}, fmt.Errorf("mint: %w", err)
		}
	}
	c := caveat.Condition{
		Session: session,
		User:    p.User,
		Device:  p.Device,
		Minted:  h.cfg.Clock().UnixMilli(),
		Mode:    p.Mode,
		Policy:  p.Policy,
		MaxTTL:  p.MaxTTL,
		Labels:  p.Labels,
	}
	if !p.Expires.IsZero() {
		if c.Expires = p.Expires.UnixMilli(); c.Expires <= c.Minted {
			return Minted{}, errors.New("mint: the session would have ended already")
		}
	}
	condition, err := c.Encode()
	if err != nil {
		return Minted{}, fmt.Errorf("mint: %w", err)
	}
	if c.Minted > maxMinted {
		return Minted{}, errors.New("mint: the clock is beyond the year 10000")
	}
	rootKey := make(caveat.Secret, rootKeySize)
	if _, err := io.ReadFull(h.cfg.Rand, rootKey); err != nil {
		return Minted{}, fmt.Errorf("mint: draw root key: %w", err)
	}
	id, err := sealer.Seal(rootKey, condition)
	if err != nil {
		return Minted{}, fmt.Errorf("mint: %w", err)
	}
	m, err := h.access(&ring.mint, c, p.Payload)
	if err != nil {
		return Minted{}, fmt.Errorf("mint: %w", err)
	}
	if err := m.AddThirdPartyCaveat(rootKey, id, h.cfg.Location); err != nil {
		return Minted{}, fmt.Errorf("mint: %w", err)
	}
	if err := checkSize(m, id); err != nil {
		return Minted{}, fmt.Errorf("mint: %w", err)
	}
	return Minted{Macaroon: m, Session: session, Condition: c}, nil
}

// dischargeRoom is for a discharge's signature and first-party caveats, in bytes.
const dischargeRoom = 1 << 10

// checkSize refuses an access macaroon that would not fit into a bundle with its
// discharge, whose identifier is the caveat's. Names of the greatest length do;
// with the greatest payload and many labels in addition they may not.
func checkSize(m *macaroon.Macaroon, caveatID []byte) error {
	data, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	if n := base64.RawURLEncoding.EncodedLen(len(data) + len(caveatID) + dischargeRoom); n > bundle.MaxLength {
		return fmt.Errorf("a bundle would have %d characters, more than %d", n, bundle.MaxLength)
	}
	return nil
}

// access makes an access macaroon without its caveat. It must not leave this
// package like that: it would be good as it is.
func (h *Homeserver) access(key *Key, c caveat.Condition, payload []byte) (*macaroon.Macaroon, error) {
	id := identifier{
		mode:    c.Mode,
		key:     keyID(key.ID()),
		session: c.Session,
		minted:  c.Minted,
		user:    []byte(c.User),
		device:  []byte(c.Device),
		payload: payload,
	}
	encoded := id.append(nil)
	root := key.rootKey(encoded)
	return macaroon.New(root[:], encoded, h.cfg.Name, macaroon.V2)
}
