package caveat

import (
	"golang.org/x/crypto/nacl/box"

	"github.com/discharger/discharger/discharger/secret"
)

// Secret is the former name of [secret.Bytes].
type Secret = secret.Bytes

// sharedKey gives the key that a private key and the other side's public key
// agree on. It is a function because nothing that prints values looks into
// one, while a pointer in a field, which methods cannot guard when the field is
// not exported, is followed by some verbs of fmt.
type sharedKey func() *[keySize]byte

// agree does the X25519 multiplication.
func agree(private PrivateKey, peer PublicKey) sharedKey {
	shared := new([keySize]byte)
	box.Precompute(shared, (*[keySize]byte)(&peer), (*[keySize]byte)(&private.Key))
	return func() *[keySize]byte { return shared }
}
