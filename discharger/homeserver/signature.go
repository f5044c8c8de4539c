package homeserver

import (
	"bytes"
	"crypto/hmac"
	"errors"

	"golang.org/x/crypto/nacl/secretbox"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

const (
	nonceSize = 24
	vidSize   = nonceSize + secretbox.Overhead + rawmacaroon.Size
)

// openVerificationID decrypts the first key of a discharge's chain, which is
// encrypted under the signature before the caveat.
func openVerificationID(sig *[rawmacaroon.Size]byte, vid []byte) (key [rawmacaroon.Size]byte, ok bool) {
	if len(vid) != vidSize {
		return key, false
	}
	nonce := [nonceSize]byte(vid)
	_, ok = secretbox.Open(key[:0], vid[nonceSize:], &nonce, sig)
	return key, ok
}

// checkAccess verifies an access macaroon and returns the first key of its
// discharge's chain. The first caveat is the homeserver's third-party caveat; all
// others are conditions.
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

// checkDischarge verifies that there is one discharge, that it is for the caveat of
// the verified access macaroon, and that it is bound to it.
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

// extend continues a signature over conditions.
func extend(sig *[rawmacaroon.Size]byte, caveats []rawmacaroon.Caveat, part Part) error {
	for i := range caveats {
		if caveats[i].ThirdParty() {
			return &Error{Kind: ErrUnknownCaveat, Part: part, Err: errors.New("third-party caveat is not the homeserver's")}
		}
		*sig = rawmacaroon.Hash(sig, caveats[i].ID)
	}
	return nil
}
