package token

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Sealer encrypts the contents of tokens; see the package comment. It may be used
// concurrently.
type Sealer struct {
	current atomic.Pointer[sealRing]
}

// sealRing is an immutable set of keys.
type sealRing struct {
	keys    []sealKeys // the first seals
	retired [][4]byte  // ids of retired master keys
}

func (s *Sealer) ring() *sealRing { return s.current.Load() }

// Replace replaces the keys by those of another sealer.
func (s *Sealer) Replace(by *Sealer) { s.current.Store(by.current.Load()) }

// sealKeys are derived from one master key.
type sealKeys struct {
	id       [4]byte
	upstream boxKey
	refresh  boxKey
}

// boxKey seals for one purpose.
type boxKey struct {
	aead  cipher.AEAD
	nonce [32]byte
}

// Labels and sizes of boxes.
const (
	labelUpstream = "discharger/gateway upstream token v1\x00"
	labelRefresh  = "discharger/gateway refresh token v1\x00"
	labelNonce    = "nonce\x00"

	KeyIDSize  = 4 // bytes of the id of a master key in a box
	boxHead    = KeyIDSize + chacha20poly1305.NonceSizeX
	boxMinimum = boxHead + chacha20poly1305.Overhead
)

// NewSealer returns a sealer that seals under the first of the master keys, and opens
// boxes under each of them.
func NewSealer(keys homeserver.Keys, retired [][4]byte) (*Sealer, error) {
	ring := &sealRing{retired: slices.Clone(retired)}
	for _, k := range keys {
		sk := sealKeys{id: k.ID()}
		var err error
		if sk.upstream, err = newBoxKey(k, labelUpstream); err != nil {
			return nil, err
		}
		if sk.refresh, err = newBoxKey(k, labelRefresh); err != nil {
			return nil, err
		}
		ring.keys = append(ring.keys, sk)
	}
	if len(ring.keys) == 0 {
		return nil, errors.New("no master key")
	}
	s := new(Sealer)
	s.current.Store(ring)
	return s, nil
}

func newBoxKey(k homeserver.Key, label string) (boxKey, error) {
	key := rawmacaroon.Hash((*[32]byte)(&k.Key), []byte(label))
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		return boxKey{}, fmt.Errorf("make cipher: %w", err)
	}
	return boxKey{aead: aead, nonce: rawmacaroon.Hash(&key, []byte(labelNonce))}, nil
}

// box seals a text, bound to additional data.
func (k *boxKey) box(id [4]byte, data, text []byte) []byte {
	length := binary.BigEndian.AppendUint64(nil, uint64(len(data)))
	sum := rawmacaroon.Hash(&k.nonce, length, data, text)
	b := make([]byte, 0, boxMinimum+len(text))
	b = append(b, id[:]...)
	b = append(b, sum[:chacha20poly1305.NonceSizeX]...)
	return k.aead.Seal(b, b[KeyIDSize:boxHead], text, data)
}

var (
	errBox         = errors.New("not sealed here, or damaged")
	errUnknownSeal = fmt.Errorf("sealed with a master key: %w", homeserver.ErrUnknownKey)
	errRetiredSeal = fmt.Errorf("sealed with a master key: %w", homeserver.ErrRetiredKey)
)

// open returns the text in a box. The error matches [homeserver.ErrUnknownKey] or
// [homeserver.ErrRetiredKey] if the box may be valid under a key that is not loaded.
func (s *Sealer) open(box, data []byte, purpose func(*sealKeys) *boxKey) ([]byte, error) {
	if len(box) < boxMinimum {
		return nil, errBox
	}
	ring := s.ring()
	id := [4]byte(box[:KeyIDSize])
	for i := range ring.keys {
		k := &ring.keys[i]
		if k.id != id {
			continue
		}
		text, err := purpose(k).aead.Open(nil, box[KeyIDSize:boxHead], box[boxHead:], data)
		if err != nil {
			return nil, errBox
		}
		return text, nil
	}
	if slices.Contains(ring.retired, id) {
		return nil, errRetiredSeal
	}
	return nil, fmt.Errorf("%w: key %x", errUnknownSeal, id[:])
}

// SealUpstream seals the homeserver's own token of a session.
func (s *Sealer) SealUpstream(session caveat.SessionID, token string) []byte {
	k := &s.ring().keys[0]
	return k.upstream.box(k.id, session[:], []byte(token))
}

// OpenUpstream returns the homeserver's own token of a session.
func (s *Sealer) OpenUpstream(session caveat.SessionID, box []byte) (string, error) {
	text, err := s.open(box, session[:], func(k *sealKeys) *boxKey { return &k.upstream })
	return string(text), err
}

// SealRefresh seals the contents of a refresh token.
func (s *Sealer) SealRefresh(text []byte) []byte {
	k := &s.ring().keys[0]
	return k.refresh.box(k.id, nil, text)
}

// openRefresh returns the contents of a refresh token.
func (s *Sealer) openRefresh(box []byte) ([]byte, error) {
	return s.open(box, nil, func(k *sealKeys) *boxKey { return &k.refresh })
}
