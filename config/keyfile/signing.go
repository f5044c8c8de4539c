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

	"github.com/discharger/discharger/config/atomicfile"
)

// Signing keys are RSA keys, and in a file of their own: PKCS #8 in PEM, one
// block for each, the newest first. The newest signs; the others are published
// beside it for as long as they are in the file.

const (
	signingBlock = "PRIVATE KEY"
	signingBits  = 2048
	minSigning   = 2048 // bits, as receivers of security events demand
	maxSigning   = 8192
)

// NewSigning makes a file with one new key, mode 0600. If there is a file
// already, it stays as it is and the error matches [fs.ErrExist].
func NewSigning(path string) ([]*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, signingBits)
	if err != nil {
		return nil, fmt.Errorf("make signing key: %w", err)
	}
	text, err := encodeSigning(key)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Create(path, text); err != nil {
		return nil, fmt.Errorf("write signing keys: %w", err)
	}
	return []*rsa.PrivateKey{key}, nil
}

// AddSigning puts a new key before those in a file, whose mode and owner stay.
func AddSigning(path string, a Access) error {
	return updateSigning(path, a, func(keys []*rsa.PrivateKey) ([]*rsa.PrivateKey, error) {
		key, err := rsa.GenerateKey(rand.Reader, signingBits)
		if err != nil {
			return nil, fmt.Errorf("make signing key: %w", err)
		}
		return append([]*rsa.PrivateKey{key}, keys...), nil
	})
}

// RetireSigning takes the key out of a file that match knows; an error from it
// changes nothing. The error matches [ErrUnknownKey] if it knows none. The last
// key stays.
func RetireSigning(path string, a Access, match func(*rsa.PublicKey) (bool, error)) error {
	return updateSigning(path, a, func(keys []*rsa.PrivateKey) ([]*rsa.PrivateKey, error) {
		for i, k := range keys {
			found, err := match(&k.PublicKey)
			switch {
			case err != nil:
				return nil, err
			case found && len(keys) == 1:
				return nil, errors.New("retire key: it is the only one; add another first")
			case found:
				return slices.Delete(keys, i, i+1), nil
			}
		}
		return nil, ErrUnknownKey
	})
}

// updateSigning changes the keys in a file, unless change fails.
func updateSigning(path string, a Access, change func([]*rsa.PrivateKey) ([]*rsa.PrivateKey, error)) error {
	unlock, err := atomicfile.Lock(path)
	if err != nil {
		return fmt.Errorf("update signing keys: %w", err)
	}
	defer unlock()
	keys, err := LoadSigning(path, a)
	if err != nil {
		return err
	}
	if keys, err = change(keys); err != nil {
		return fmt.Errorf("signing keys %s: %w", path, err)
	}
	text, err := encodeSigning(keys...)
	if err != nil {
		return err
	}
	if err := atomicfile.Replace(path, text); err != nil {
		return fmt.Errorf("write signing keys: %w", err)
	}
	return nil
}

// LoadSigning reads the keys in a file, the newest first; there is at least one.
func LoadSigning(path string, a Access) ([]*rsa.PrivateKey, error) {
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

func encodeSigning(keys ...*rsa.PrivateKey) (text []byte, err error) {
	for _, key := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode signing key: %w", err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: signingBlock, Bytes: der})...)
	}
	return text, nil
}

// decodeSigning reads keys and nothing else. Errors do not repeat what is there.
func decodeSigning(data []byte) ([]*rsa.PrivateKey, error) {
	var keys []*rsa.PrivateKey
	for rest := bytes.TrimSpace(data); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, errors.New("there is something that is not PEM")
		}
		block, more := pem.Decode(rest)
		if block == nil || block.Type != signingBlock || len(block.Headers) > 0 {
			return nil, fmt.Errorf("there is something that is not a %s in PEM", signingBlock)
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		key, ok := parsed.(*rsa.PrivateKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("key %d is not an RSA key in PKCS #8", len(keys)+1)
		}
		if n := key.N.BitLen(); n < minSigning || n > maxSigning {
			return nil, fmt.Errorf("key %d has %d bits, want %d to %d", len(keys)+1, n, minSigning, maxSigning)
		}
		for _, other := range keys {
			if other.Equal(key) {
				return nil, fmt.Errorf("key %d comes twice", len(keys)+1)
			}
		}
		keys, rest = append(keys, key), more
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no key in it")
	}
	return keys, nil
}
