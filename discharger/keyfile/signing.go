package keyfile

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/discharger/discharger/discharger/atomicfile"
)

// Signing keys are RSA keys in a file of their own: PKCS #8 in PEM, one block for
// each. The first that is not staged signs. All keys in the file are published, so
// that receivers have a staged key before it signs. A staged key has the PEM header
// "State: staged". Programs from before December 2026 refuse a file with such a header.

const (
	signingBlock = "PRIVATE KEY"
	signingBits  = 2048
	minSigning   = 2048 // bits, as receivers of security events demand
	maxSigning   = 8192

	signingState = "State" // PEM header of staged keys, with the value string(Staged)
)

// SigningKey is a key in a file of signing keys.
type SigningKey struct {
	*rsa.PrivateKey
	State State
}

// signingKeys are the keys of a file: used, previous, staged.
type signingKeys []SigningKey

// ordered returns the keys in order, with the states that follow from it.
func (keys signingKeys) ordered() signingKeys {
	var active, staged signingKeys
	for _, k := range keys {
		switch {
		case k.State == Staged:
			staged = append(staged, k)
		case len(active) == 0:
			active = append(active, SigningKey{k.PrivateKey, Used})
		default:
			active = append(active, SigningKey{k.PrivateKey, Previous})
		}
	}
	return append(active, staged...)
}

// NewSigning writes a file with one new key, mode 0600. If the file exists, it is
// unchanged and the error matches [fs.ErrExist].
func NewSigning(path string) ([]*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, signingBits)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	text, err := encodeSigning(SigningKey{key, Used})
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Create(path, text); err != nil {
		return nil, fmt.Errorf("write signing keys: %w", err)
	}
	return []*rsa.PrivateKey{key}, nil
}

// AddSigning adds a new key to a file, whose mode and owner are kept. The state is
// [Used] or [Staged].
func AddSigning(path string, a Access, state State) (*rsa.PublicKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, signingBits)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	return &key.PublicKey, updateSigning(path, a, func(keys signingKeys) (signingKeys, error) {
		return append(signingKeys{{key, state}}, keys...), nil
	})
}

// UseSigning makes the key for which match returns true the signing key. The error
// matches [ErrUnknownKey] if there is none.
func UseSigning(path string, a Access, match func(*rsa.PublicKey) bool) error {
	return updateSigning(path, a, func(keys signingKeys) (signingKeys, error) {
		i, err := keys.find(match)
		if err != nil {
			return nil, err
		}
		k := keys[i]
		k.State = Used
		return append(signingKeys{k}, slices.Delete(keys, i, i+1)...), nil
	})
}

// RetireSigning removes the key for which match returns true from a file, unless it
// signs. The error matches [ErrUnknownKey] if there is none.
func RetireSigning(path string, a Access, match func(*rsa.PublicKey) bool) error {
	return updateSigning(path, a, func(keys signingKeys) (signingKeys, error) {
		i, err := keys.find(match)
		if err != nil {
			return nil, err
		}
		if keys[i].State == Used {
			return nil, errors.New("retire key: it is the one in use; use another one first")
		}
		return slices.Delete(keys, i, i+1), nil
	})
}

func (keys signingKeys) find(match func(*rsa.PublicKey) bool) (int, error) {
	i := slices.IndexFunc(keys, func(k SigningKey) bool { return match(&k.PublicKey) })
	if i < 0 {
		return 0, ErrUnknownKey
	}
	return i, nil
}

// updateSigning changes the keys in a file, unless change fails.
func updateSigning(path string, a Access, change func(signingKeys) (signingKeys, error)) error {
	return replace(path, func() ([]byte, error) {
		keys, err := ListSigning(path, a)
		if err != nil {
			return nil, err
		}
		if keys, err = change(keys); err != nil {
			return nil, fmt.Errorf("signing keys %s: %w", path, err)
		}
		return encodeSigning(keys...)
	})
}

// LoadSigning reads the keys in a file, at least one. The first signs.
func LoadSigning(path string, a Access) ([]*rsa.PrivateKey, error) {
	keys, err := ListSigning(path, a)
	if err != nil {
		return nil, err
	}
	all := make([]*rsa.PrivateKey, len(keys))
	for i, k := range keys {
		all[i] = k.PrivateKey
	}
	return all, nil
}

// ListSigning reads the keys in a file with their states: the used one, the
// previous ones with the latest first, and the staged ones.
func ListSigning(path string, a Access) ([]SigningKey, error) {
	data, err := readSecret(path, a)
	if err != nil {
		return nil, err
	}
	keys, err := decodeSigning(data)
	if err != nil {
		return nil, fmt.Errorf("signing keys %s: %w", path, err)
	}
	return keys, nil
}

func encodeSigning(keys ...SigningKey) (text []byte, err error) {
	for _, key := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(key.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("encode signing key: %w", err)
		}
		block := &pem.Block{Type: signingBlock, Bytes: der}
		if key.State == Staged {
			block.Headers = map[string]string{signingState: string(Staged)}
		}
		text = append(text, pem.EncodeToMemory(block)...)
	}
	return text, nil
}

// decodeSigning parses a file of keys. Errors do not quote it.
func decodeSigning(data []byte) (signingKeys, error) {
	var keys signingKeys
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, errors.New("file has text that is not PEM")
		}
		block, more := pem.Decode(rest)
		if block == nil || block.Type != signingBlock {
			return nil, fmt.Errorf("file has a block that is not a %s in PEM", signingBlock)
		}
		state := Used
		if len(block.Headers) > 0 {
			if state = State(block.Headers[signingState]); state != Staged || len(block.Headers) > 1 {
				return nil, fmt.Errorf("key %d has a PEM header that is not State: staged", len(keys)+1)
			}
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		key, ok := parsed.(*rsa.PrivateKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("key %d is not an RSA key in PKCS #8", len(keys)+1)
		}
		if n := key.N.BitLen(); n < minSigning || n > maxSigning {
			return nil, fmt.Errorf("key %d has %d bits, want %d to %d", len(keys)+1, n, minSigning, maxSigning)
		}
		if slices.ContainsFunc(keys, func(other SigningKey) bool { return other.Equal(key) }) {
			return nil, fmt.Errorf("key %d is a duplicate", len(keys)+1)
		}
		keys, rest = append(keys, SigningKey{key, state}), more
	}
	if len(keys) == 0 {
		return nil, errors.New("file has no key")
	}
	if keys = keys.ordered(); keys[0].State == Staged {
		return nil, errors.New("every key is staged")
	}
	return keys, nil
}
