package homeserver

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
)

// MintParams describe one login. User and Mode are required.
type MintParams struct {
	User    string            // the homeserver's name of the user: 1 to 255 bytes
	Device  string            // the homeserver's name of the device: up to 512 characters; may be empty
	Mode    caveat.Mode       // who may fetch discharges
	Policy  string            // that applies; empty: the homeserver's own
	MaxTTL  time.Duration     // no discharge lives longer; whole seconds; 0: the discharger's default
	Expires time.Time         // end of the session; zero: the discharger's limits alone
	Labels  map[string]string // for policies
	Version caveat.Version    // encoding of the caveat; 0: V2, the smallest
	Session caveat.SessionID  // from [caveat.NewSessionID]; zero: a new one
	Payload []byte            // part of the identifier, readable by holders; up to MaxPayload; empty: none
}

// Minted is a new access macaroon, for the client. Its holder can request discharges
// as the mode permits.
type Minted struct {
	Macaroon  *macaroon.Macaroon
	Session   caveat.SessionID
	Condition caveat.Condition
}

// Text returns the access macaroon as text, in the form of a bundle without discharges.
func (m Minted) Text() (string, error) { return bundle.Encode(macaroon.Slice{m.Macaroon}) }

// rootKeySize is the size of the caveat's root key, which is the bakery's.
const rootKeySize = 24

// Mint returns an access macaroon of a new session. The discharger creates the
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
	if p.Session == (caveat.SessionID{}) {
		p.Session = caveat.NewSessionID()
	}
	c := caveat.Condition{
		Session: p.Session, User: p.User, Device: p.Device, Minted: h.cfg.now().UnixMilli(), Mode: p.Mode,
		Policy: p.Policy, MaxTTL: p.MaxTTL, Labels: p.Labels,
	}
	if !p.Expires.IsZero() {
		if c.Expires = p.Expires.UnixMilli(); c.Expires <= c.Minted {
			return Minted{}, errors.New("mint: session has ended already")
		}
	}
	condition, err := c.Encode()
	if err != nil {
		return Minted{}, fmt.Errorf("mint: %w", err)
	}
	if c.Minted > maxMinted {
		return Minted{}, errors.New("mint: clock is beyond the year 10000")
	}
	rootKey := make([]byte, rootKeySize)
	rand.Read(rootKey) // never fails
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
	return Minted{Macaroon: m, Session: p.Session, Condition: c}, nil
}

// dischargeRoom is the size of a discharge's signature and first-party caveats.
const dischargeRoom = 1 << 10

// checkSize refuses an access macaroon that does not fit into a bundle with its
// discharge, whose identifier is the caveat's. Names of the greatest length fit;
// with the greatest payload and many labels they may not.
func checkSize(m *macaroon.Macaroon, caveatID []byte) error {
	data, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	if n := base64.RawURLEncoding.EncodedLen(len(data) + len(caveatID) + dischargeRoom); n > bundle.MaxLength {
		return fmt.Errorf("bundle would have %d characters, more than %d", n, bundle.MaxLength)
	}
	return nil
}

// access returns an access macaroon without its caveat. It must not leave this
// package: without the caveat it needs no discharge.
func (h *Homeserver) access(key *Key, c caveat.Condition, payload []byte) (*macaroon.Macaroon, error) {
	id := identifier{
		mode: c.Mode, key: key.ID(), session: c.Session, minted: c.Minted, user: []byte(c.User), device: []byte(c.Device), payload: payload,
	}
	encoded := id.append(nil)
	root := key.rootKey(encoded)
	return macaroon.New(root[:], encoded, h.cfg.Name, macaroon.V2)
}
