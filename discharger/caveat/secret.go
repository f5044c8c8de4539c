package caveat

import "golang.org/x/crypto/nacl/box"

// sharedKey returns the key that a private key and the other side's public key agree
// on. It is a function because package fmt does not print the variables of one, while
// it follows pointers in unexported fields without calling their methods.
type sharedKey func() *[keySize]byte

// agree computes the shared key by an X25519 multiplication.
func agree(private PrivateKey, peer PublicKey) sharedKey {
	shared := new([keySize]byte)
	box.Precompute(shared, (*[keySize]byte)(&peer), (*[keySize]byte)(&private.Key))
	return func() *[keySize]byte { return shared }
}
