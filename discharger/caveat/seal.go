package caveat

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/box"

	"github.com/discharger/discharger/discharger/secret"
)

// SealerConfig configures a [Sealer].
type SealerConfig struct {
	Version    Version
	Homeserver KeyPair   // seals
	Discharger PublicKey // opens
}

// Sealer seals a homeserver's caveats for one discharger. It checks the keys
// and computes their shared key once. It is safe for concurrent use.
type Sealer struct {
	version    Version
	homeserver PublicKey
	discharger PublicKey
	shared     sharedKey
}

// NewSealer returns a Sealer. The error matches [ErrWeakKey] for a discharger's key
// whose caveats are open to all.
func NewSealer(cfg SealerConfig) (*Sealer, error) {
	if cfg.Version < V1 || cfg.Version > V3 {
		return nil, fmt.Errorf("seal caveat: unknown version %d", cfg.Version)
	}
	if err := cfg.Homeserver.Validate(); err != nil {
		return nil, fmt.Errorf("seal caveat: homeserver: %w", err)
	}
	if err := CheckPublicKey(cfg.Discharger); err != nil {
		return nil, fmt.Errorf("seal caveat: discharger: %w", err)
	}
	return &Sealer{
		version:    cfg.Version,
		homeserver: cfg.Homeserver.Public,
		discharger: cfg.Discharger,
		shared:     agree(cfg.Homeserver.Private, cfg.Discharger),
	}, nil
}

// Seal returns a caveat id: base64 text for V1, binary for V2 and V3. The namespace of
// a V3 caveat is "std:". Root key and condition must not be empty, nor so large that
// the caveat exceeds its limit; the condition of V1 must be UTF-8.
func (s *Sealer) Seal(rootKey []byte, condition string) ([]byte, error) {
	if len(rootKey) == 0 {
		return nil, errors.New("seal caveat: root key is empty")
	}
	if condition == "" {
		return nil, errors.New("seal caveat: condition is empty")
	}
	var nonce [nonceSize]byte
	rand.Read(nonce[:]) // never fails
	return s.seal(&nonce, rootKey, condition)
}

// seal is Seal with a nonce.
func (s *Sealer) seal(nonce *[nonceSize]byte, rootKey []byte, condition string) ([]byte, error) {
	limit := MaxBinarySize
	var id []byte
	if s.version == V1 {
		limit = MaxTextSize
		var err error
		if id, err = s.sealText(nonce, rootKey, condition); err != nil {
			return nil, fmt.Errorf("seal caveat: %w", err)
		}
	} else {
		id = s.sealBinary(nonce, rootKey, condition)
	}
	if len(id) > limit {
		return nil, fmt.Errorf("seal caveat: %d bytes, more than %d", len(id), limit)
	}
	return id, nil
}

// sealBinary seals in the V2 or V3 encoding.
func (s *Sealer) sealBinary(nonce *[nonceSize]byte, rootKey []byte, condition string) []byte {
	size := 1 + 2*binary.MaxVarintLen64 + len(rootKey) + len(sealedNamespace) + len(condition)
	plain := make([]byte, 0, size)
	plain = append(plain, byte(s.version))
	plain = binary.AppendUvarint(plain, uint64(len(rootKey)))
	plain = append(plain, rootKey...)
	if s.version == V3 {
		plain = binary.AppendUvarint(plain, uint64(len(sealedNamespace)))
		plain = append(plain, sealedNamespace...)
	}
	plain = append(plain, condition...)

	id := make([]byte, 0, boxAt+box.Overhead+len(plain))
	id = append(id, byte(s.version))
	id = append(id, s.discharger[:prefixSize]...)
	id = append(id, s.homeserver[:]...)
	id = append(id, nonce[:]...)
	return box.SealAfterPrecomputation(id, plain, nonce, s.shared())
}

// SealParams is one caveat to seal, and its keys.
type SealParams struct {
	Version    Version
	Homeserver KeyPair
	Discharger PublicKey
	RootKey    secret.Bytes
	Condition  string
}

// Seal seals one caveat. A program that seals more than one for the same discharger
// keeps a [Sealer]: making it takes a hundred times as long as sealing.
func Seal(p SealParams) ([]byte, error) {
	s, err := NewSealer(SealerConfig{
		Version:    p.Version,
		Homeserver: p.Homeserver,
		Discharger: p.Discharger,
	})
	if err != nil {
		return nil, err
	}
	return s.Seal(p.RootKey, p.Condition)
}

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
