package homeserver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Request is what Verify has to know of the request that a bundle came with.
type Request struct {
	// ClientIP is the client's address. The zero value is an unknown one,
	// which meets no client-ip condition.
	ClientIP netip.Addr
}

// Identity is what a bundle proves.
type Identity struct {
	User    string           // as given to Mint
	Device  string           // as given to Mint
	Session caveat.SessionID //
	Mode    caveat.Mode      //
	Minted  time.Time        // when the access macaroon was made, UTC
	Payload string           // as given to Mint; empty: none
	Epoch   uint64           // of the discharge, in mode rotate; in the others 0
	Expires time.Time        // when this bundle ends: the earliest time-before in it, UTC
}

// Verify checks a bundle, in either form, and says whose it is. It asks nobody.
// The error is an [*Error] of a kind listed there, and then the identity is the
// zero value. ctx is for [Config.Check].
func (h *Homeserver) Verify(ctx context.Context, bundle string, r Request) (Identity, error) {
	ring := h.ring.Load()
	if v, ok := ring.cache.Get(bundle); ok {
		return h.admit(ctx, v, r)
	}
	v, err := ring.authenticate(bundle)
	if err != nil {
		return Identity{}, err
	}
	identity, err := h.admit(ctx, v, r)
	if err == nil {
		// Only what was accepted is worth remembering. It is refused for
		// reasons that are looked at every time.
		ring.keep(bundle, v)
	}
	return identity, err
}

// admit checks what depends on the moment and the request.
func (h *Homeserver) admit(ctx context.Context, v *verified, r Request) (Identity, error) {
	if err := v.inTime(h.cfg.Clock().Add(-h.cfg.Leeway)); err != nil {
		return Identity{}, err
	}
	return h.meet(ctx, v, r)
}

// meet checks conditions other than time, and revocations.
func (h *Homeserver) meet(ctx context.Context, v *verified, r Request) (Identity, error) {
	for i := range v.addresses {
		if a := &v.addresses[i]; !rawmacaroon.MatchClientIP(a.prefix, r.ClientIP) {
			return Identity{}, &Error{Kind: ErrNotMet, Part: a.part, Condition: rawmacaroon.ClientIP(a.prefix)}
		}
	}
	for _, o := range v.others {
		if h.cfg.Check == nil {
			return Identity{}, &Error{Kind: ErrUnknownCaveat, Part: o.part, Condition: o.condition}
		}
		if err := h.cfg.Check(ctx, o.condition); err != nil {
			return Identity{}, &Error{Kind: kindOf(err), Part: o.part, Condition: o.condition, Err: err}
		}
	}
	if h.cfg.Revocations != nil {
		if soft, revoked := h.revoked(v.identity); revoked {
			return Identity{}, &Error{Kind: ErrRevoked, SoftLogout: soft}
		}
	}
	if h.freshness != nil {
		if err := h.freshness.Undecided(); err != nil {
			return Identity{}, &Error{Kind: ErrUndecided, Err: err}
		}
	}
	return v.identity, nil
}

// revoked asks Config.Revocations. A kind of end that is not known is soft,
// which costs nobody a key.
func (h *Homeserver) revoked(id Identity) (soft, revoked bool) {
	if h.kinds != nil {
		return h.kinds.RevokedKind(id)
	}
	return true, h.cfg.Revocations.Revoked(id)
}

// kindOf says what an error of Check means.
func kindOf(err error) error {
	if errors.Is(err, ErrUnknownCaveat) {
		return ErrUnknownCaveat
	}
	return ErrNotMet
}

// authenticate checks everything about a bundle that stays true for ever: its
// form, its signatures, and that each caveat is one that may stand where it
// does.
func (r *ring) authenticate(text string) (*verified, error) {
	b, id, dischargeKey, err := r.recognize(text)
	if err != nil {
		return nil, err
	}
	if err := checkDischarge(b, &dischargeKey); err != nil {
		return nil, err
	}
	return newVerified(b, &id)
}

// recognize reads a bundle and verifies its access macaroon.
func (r *ring) recognize(text string) (b *bundle.Bundle, id identifier, dischargeKey [rawmacaroon.Size]byte, err error) {
	if b, err = bundle.Parse(text); err != nil {
		return nil, id, dischargeKey, &Error{Kind: ErrMalformed, Err: err}
	}
	id, ok := parseIdentifier(b.Access.ID)
	if !ok {
		return nil, id, dischargeKey, &Error{Kind: ErrMalformed, Part: PartAccess, Err: errors.New("identifier is of another kind")}
	}
	if len(b.Access.Caveats) == 0 || !b.Access.Caveats[0].ThirdParty() {
		return nil, id, dischargeKey, &Error{Kind: ErrMalformed, Part: PartAccess, Err: errors.New("first caveat is not a third-party caveat")}
	}
	key, err := r.key(id.key)
	if err != nil {
		return nil, id, dischargeKey, err
	}
	if dischargeKey, err = checkAccess(&b.Access, &key); err != nil {
		return nil, id, dischargeKey, err
	}
	return b, id, dischargeKey, r.boundConditions(&b.Access)
}

// boundConditions refuses an access macaroon to which its holder added more than
// it may.
func (r *ring) boundConditions(access *rawmacaroon.Macaroon) error {
	added := access.Caveats[1:]
	if r.maxConditions > 0 && len(added) > r.maxConditions {
		return &Error{Kind: ErrMalformed, Part: PartAccess, Err: fmt.Errorf("more than %d conditions were added", r.maxConditions)}
	}
	for i := range added {
		if r.maxCondition > 0 && len(added[i].ID) > r.maxCondition {
			return &Error{Kind: ErrMalformed, Part: PartAccess, Err: fmt.Errorf("a condition of more than %d bytes was added", r.maxCondition)}
		}
	}
	return nil
}

// checkAccess verifies an access macaroon and gives the first key of its
// discharge's chain. The first caveat is a third-party caveat, ours; all others are
// conditions.
func checkAccess(access *rawmacaroon.Macaroon, key *Key) (dischargeKey [rawmacaroon.Size]byte, err error) {
	root := key.rootKey(access.ID)
	sig := rawmacaroon.Key(root[:])
	sig = rawmacaroon.Hash(&sig, access.ID)
	ours := &access.Caveats[0]
	dischargeKey, ok := openVerificationID(&sig, ours.VerificationID)
	if !ok {
		return dischargeKey, &Error{Kind: ErrBadSignature, Part: PartAccess}
	}
	sig = rawmacaroon.Hash2(&sig, ours.VerificationID, ours.ID)
	if err := extend(&sig, access.Caveats[1:], PartAccess); err != nil {
		return dischargeKey, err
	}
	if !hmac.Equal(sig[:], access.Signature) {
		return dischargeKey, &Error{Kind: ErrBadSignature, Part: PartAccess}
	}
	return dischargeKey, nil
}

// checkDischarge verifies that the one discharge is that of the access
// macaroon's caveat, and bound to it. The access macaroon is in order already.
func checkDischarge(b *bundle.Bundle, key *[rawmacaroon.Size]byte) error {
	switch {
	case len(b.Discharges) == 0:
		return &Error{Kind: ErrNotDischarged}
	case len(b.Discharges) > 1:
		return &Error{Kind: ErrMalformed, Err: errors.New("more than one discharge")}
	}
	d := &b.Discharges[0]
	if !bytes.Equal(d.ID, b.Access.Caveats[0].ID) {
		return &Error{Kind: ErrNotDischarged, Err: errors.New("discharge is for another caveat")}
	}
	sig := rawmacaroon.Hash(key, d.ID)
	if err := extend(&sig, d.Caveats, PartDischarge); err != nil {
		return err
	}
	sig = rawmacaroon.Bind((*[rawmacaroon.Size]byte)(b.Access.Signature), &sig)
	if !hmac.Equal(sig[:], d.Signature) {
		return &Error{Kind: ErrBadSignature, Part: PartDischarge}
	}
	return nil
}

// extend goes on with a signature over conditions.
func extend(sig *[rawmacaroon.Size]byte, caveats []rawmacaroon.Caveat, part Part) error {
	for i := range caveats {
		if caveats[i].ThirdParty() {
			return &Error{Kind: ErrUnknownCaveat, Part: part, Err: errors.New("a third-party caveat that is not the homeserver's")}
		}
		*sig = rawmacaroon.Hash(sig, caveats[i].ID)
	}
	return nil
}
