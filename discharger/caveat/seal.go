package caveat

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/nacl/box"
)

// SealerConfig is what a [Sealer] is made from.
type SealerConfig struct {
	Version    Version
	Homeserver KeyPair   // whoever seals
	Discharger PublicKey // for whom
	Rand       io.Reader // for nonces; nil is crypto/rand
}

// Sealer seals a homeserver's caveats for one discharger. It checks the keys
// and computes their shared key once. Any number of goroutines may use it if
// they may use its Rand.
type Sealer struct {
	version    Version
	homeserver PublicKey
	discharger PublicKey
	shared     sharedKey
	rand       io.Reader
}

// NewSealer makes a Sealer. The error matches [ErrWeakKey] for a discharger's
// key with which everybody could open the caveats.
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
	s := &Sealer{
		version:    cfg.Version,
		homeserver: cfg.Homeserver.Public,
		discharger: cfg.Discharger,
		shared:     agree(cfg.Homeserver.Private, cfg.Discharger),
		rand:       cfg.Rand,
	}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	return s, nil
}

// Seal returns a caveat id: base64 text for V1, binary for V2 and V3. The
// namespace of a V3 caveat is "std:". Neither the root key nor the condition
// may be empty, nor the two so large that the caveat would not be opened; V1
// takes no condition that is not UTF-8.
func (s *Sealer) Seal(rootKey []byte, condition string) ([]byte, error) {
	if len(rootKey) == 0 {
		return nil, errors.New("seal caveat: root key is empty")
	}
	if condition == "" {
		return nil, errors.New("seal caveat: condition is empty")
	}
	var nonce [nonceSize]byte
	if _, err := io.ReadFull(s.rand, nonce[:]); err != nil {
		return nil, fmt.Errorf("seal caveat: read nonce: %w", err)
	}
	limit := MaxBinarySize
	var id []byte
	if s.version == V1 {
		limit = MaxTextSize
		var err error
		if id, err = s.sealText(&nonce, rootKey, condition); err != nil {
			return nil, fmt.Errorf("seal caveat: %w", err)
		}
	} else {
		id = s.sealBinary(&nonce, rootKey, condition)
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

// SealParams is one caveat to seal, with everything that takes.
type SealParams struct {
	Version    Version
	Homeserver KeyPair
	Discharger PublicKey
	RootKey    Secret
	Condition  string
	Rand       io.Reader // for the nonce; nil is crypto/rand
}

// Seal makes a [Sealer] and uses it once. Whoever seals more than one caveat
// for the same discharger keeps the Sealer: making it is a hundred times the
// work of sealing.
func Seal(p SealParams) ([]byte, error) {
	s, err := NewSealer(SealerConfig{
		Version:    p.Version,
		Homeserver: p.Homeserver,
		Discharger: p.Discharger,
		Rand:       p.Rand,
	})
	if err != nil {
		return nil, err
	}
	return s.Seal(p.RootKey, p.Condition)
}
