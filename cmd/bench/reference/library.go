package reference

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"gopkg.in/macaroon.v2"
)

// DecodeCaveat returns a function that opens a caveat with the bakery. The decoder is
// not exported; the shortest way to it is a discharge refused right after decoding,
// which adds one copy of the condition and one error.
func DecodeCaveat(public, private [32]byte, id []byte) func() error {
	decoded, errRefused := false, errors.New("refused")
	check := func(context.Context, *bakery.ThirdPartyCaveatInfo) ([]checkers.Caveat, error) {
		decoded = true
		return nil, errRefused
	}
	params := bakery.DischargeParams{
		Id:      id,
		Key:     &bakery.KeyPair{Public: bakery.PublicKey{Key: public}, Private: bakery.PrivateKey{Key: private}},
		Checker: bakery.ThirdPartyCaveatCheckerFunc(check),
	}
	return func() error {
		if _, err := bakery.Discharge(context.Background(), params); !decoded {
			return fmt.Errorf("decode caveat with the bakery: %w", err)
		}
		return nil
	}
}

// VerifyBundle returns a function that parses and verifies a bundle with the macaroon
// library alone, without checking conditions. The bundle is a copy of the given one
// with a new root key.
func VerifyBundle(like macaroon.Slice) (func() error, error) {
	root, caveatRoot := []byte("a root key of thirty-two bytes.."), []byte("another one, for the discharge..")
	var own macaroon.Slice
	for i, m := range like {
		key := caveatRoot
		if i == 0 {
			key = root
		}
		copied, err := macaroon.New(key, m.Id(), m.Location(), macaroon.V2)
		if err != nil {
			return nil, err
		}
		for _, c := range m.Caveats() {
			if len(c.VerificationId) > 0 {
				err = copied.AddThirdPartyCaveat(caveatRoot, c.Id, c.Location)
			} else {
				err = copied.AddFirstPartyCaveat(c.Id)
			}
			if err != nil {
				return nil, err
			}
		}
		if i > 0 {
			copied.Bind(own[0].Signature())
		}
		own = append(own, copied)
	}
	data, err := own.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return func() error {
		var s macaroon.Slice
		if err := s.UnmarshalBinary(data); err != nil {
			return err
		}
		_, err := s[0].VerifySignature(root, s[1:])
		return err
	}, nil
}
