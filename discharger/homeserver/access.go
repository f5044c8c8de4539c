package homeserver

import (
	"context"
)

// VerifyAccess checks the access macaroon at the start of a bundle, or one that
// comes alone: that it was minted here, and that every condition its holder
// added holds for this request. Discharges are left aside, so it does not say
// that the session lives. It is for what does not need that: fetching a
// discharge on the holder's behalf, and logging out.
//
// In the identity, Epoch is 0, and Expires is the earliest time-before of the
// access macaroon, or zero if it has none. Errors are those of
// [Homeserver.Verify]. Nothing is remembered.
func (h *Homeserver) VerifyAccess(ctx context.Context, bundle string, r Request) (Identity, error) {
	b, id, _, err := h.ring.Load().recognize(bundle)
	if err != nil {
		return Identity{}, err
	}
	v := &verified{identity: id.identity()}
	if err := v.narrow(b.Access.Caveats[1:], PartAccess, &v.access); err != nil {
		return Identity{}, err
	}
	if err := v.accessInTime(h.cfg.Clock().Add(-h.cfg.Leeway)); err != nil {
		return Identity{}, err
	}
	v.identity.Expires = v.access
	return h.meet(ctx, v, r)
}
