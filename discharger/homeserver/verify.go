package homeserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Request describes the request that a bundle came with.
type Request struct {
	// ClientIP is the client's address, found through proxies by the caller. The
	// zero value is an unknown address, for which no client-ip condition holds.
	ClientIP netip.Addr
	// HTTP is the request itself, for [Config.Check]; [Middleware] sets it. Verify
	// does not use it. May be nil.
	HTTP *http.Request
}

// Identity is proved by a bundle.
type Identity struct {
	User    string           // as given to Mint
	Device  string           // as given to Mint
	Session caveat.SessionID //
	Mode    caveat.Mode      //
	Minted  time.Time        // when the access macaroon was minted, UTC
	Payload string           // as given to Mint; empty: none
	Epoch   uint64           // of the discharge, in mode rotate; otherwise 0
	Expires time.Time        // the earliest time-before of the bundle, UTC
}

// Verify verifies a bundle, in either form, and returns the identity that it proves.
// It does no I/O. The error is an [*Error], and then the identity is the zero value.
// ctx is for [Config.Check].
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
		ring.keep(bundle, v)
	}
	return identity, err
}

// admit checks all that depends on the time and the request.
func (h *Homeserver) admit(ctx context.Context, v *verified, r Request) (Identity, error) {
	if err := v.inTime(h.cfg.now().Add(-h.cfg.Leeway)); err != nil {
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
		c := Caveat{Condition: o.condition, Part: o.part, Identity: v.identity, Request: r}
		if err := h.cfg.Check(ctx, c); err != nil {
			return Identity{}, &Error{Kind: kindOf(err), Part: o.part, Condition: o.condition, Err: err}
		}
	}
	if h.cfg.Revocations != nil {
		if soft, revoked := h.revoked(v.identity); revoked {
			return Identity{}, &Error{Kind: ErrRevoked, Soft: soft}
		}
	}
	if h.freshness != nil {
		if err := h.freshness.Undecided(); err != nil {
			return Identity{}, &Error{Kind: ErrUndecided, Err: err}
		}
	}
	return v.identity, nil
}

// revoked queries Config.Revocations. An end of unknown kind is soft: the client
// keeps its encryption keys.
func (h *Homeserver) revoked(id Identity) (soft, revoked bool) {
	if h.kinds != nil {
		return h.kinds.RevokedKind(id)
	}
	return true, h.cfg.Revocations.Revoked(id)
}

// kindOf returns the kind of an error of Check.
func kindOf(err error) error {
	for _, kind := range []error{ErrUnknownCaveat, ErrUndecided} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	return ErrNotMet
}

// authenticate checks all that does not change with time: the bundle's form, its
// signatures, and that each caveat is one that may be at its place.
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

// recognize parses a bundle and verifies its access macaroon.
func (r *ring) recognize(text string) (b *bundle.Bundle, id identifier, dischargeKey [rawmacaroon.Size]byte, err error) {
	if b, err = bundle.Parse(text); err != nil {
		return nil, id, dischargeKey, &Error{Kind: ErrMalformed, Err: err}
	}
	id, ok := parseIdentifier(b.Access.ID)
	if !ok {
		return nil, id, dischargeKey, &Error{Kind: ErrMalformed, Part: PartAccess, Err: errors.New("identifier is not of this format")}
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

// boundConditions enforces the limits on conditions added by a holder.
func (r *ring) boundConditions(access *rawmacaroon.Macaroon) error {
	added := access.Caveats[1:]
	if r.maxConditions > 0 && len(added) > r.maxConditions {
		return &Error{Kind: ErrMalformed, Part: PartAccess, Err: fmt.Errorf("more than %d added conditions", r.maxConditions)}
	}
	for i := range added {
		if r.maxCondition > 0 && len(added[i].ID) > r.maxCondition {
			return &Error{Kind: ErrMalformed, Part: PartAccess, Err: fmt.Errorf("added condition of more than %d bytes", r.maxCondition)}
		}
	}
	return nil
}

// VerifyAccess verifies the access macaroon at the start of a bundle, or a single
// one: that it was minted with a key of the ring, and that the conditions added by
// its holder hold for this request. It ignores discharges, so it does not establish
// that the session lives. It is for requests that do not need that: fetching a
// discharge on the holder's behalf, and logging out.
//
// In the identity, Epoch is 0, and Expires is the earliest time-before of the
// access macaroon, or zero if it has none. Errors are those of [Homeserver.Verify].
// The result is not cached.
func (h *Homeserver) VerifyAccess(ctx context.Context, bundle string, r Request) (Identity, error) {
	b, id, _, err := h.ring.Load().recognize(bundle)
	if err != nil {
		return Identity{}, err
	}
	v := &verified{identity: id.identity()}
	if err := v.narrow(b.Access.Caveats[1:], PartAccess, &v.access); err != nil {
		return Identity{}, err
	}
	if err := v.accessInTime(h.cfg.now().Add(-h.cfg.Leeway)); err != nil {
		return Identity{}, err
	}
	v.identity.Expires = v.access
	return h.meet(ctx, v, r)
}
