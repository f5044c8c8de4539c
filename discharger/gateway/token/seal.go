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

// Sealer encrypts what clients carry for the gateway. A box is
//
//	0   key id     which master key               4 bytes
//	4   nonce                                    24 bytes
//	28  XChaCha20-Poly1305, with its tag
//
// and for every purpose there is a key of its own, derived from the master key.
// The nonce is derived from what is sealed, so the same box comes of the same
// contents: a client that is answered twice gets the same token twice.
type Sealer struct {
	current atomic.Pointer[sealRing]
}

// sealRing is what a sealer does its work with. It does not change.
type sealRing struct {
	keys    []sealKeys // the first seals
	retired [][4]byte  // ids of master keys that were taken out
}

// ring returns the keys that count now.
func (s *Sealer) ring() *sealRing { return s.current.Load() }

// Replace takes over the keys of another sealer.
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

const (
	labelUpstream = "discharger/gateway upstream token v1\x00"
	labelRefresh  = "discharger/gateway refresh token v1\x00"
	labelNonce    = "nonce\x00"

	KeyIDSize  = 4
	boxHead    = KeyIDSize + chacha20poly1305.NonceSizeX
	boxMinimum = boxHead + chacha20poly1305.Overhead
)

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

// box seals a text, bound to what is beside it.
func (k *boxKey) box(id [4]byte, beside, text []byte) []byte {
	length := binary.BigEndian.AppendUint64(nil, uint64(len(beside)))
	sum := rawmacaroon.Hash(&k.nonce, length, beside, text)
	b := make([]byte, 0, boxMinimum+len(text))
	b = append(b, id[:]...)
	b = append(b, sum[:chacha20poly1305.NonceSizeX]...)
	return k.aead.Seal(b, b[KeyIDSize:boxHead], text, beside)
}

var (
	errBox         = errors.New("not sealed here, or damaged")
	errUnknownSeal = fmt.Errorf("sealed with a master key: %w", homeserver.ErrUnknownKey)
	errRetiredSeal = fmt.Errorf("sealed with a master key: %w", homeserver.ErrRetiredKey)
)

// open gives what box was given. The error matches [homeserver.ErrUnknownKey] or
// [homeserver.ErrRetiredKey] if the box is in order as far as can be seen without
// its key.
func (s *Sealer) open(box, beside []byte, purpose func(*sealKeys) *boxKey) ([]byte, error) {
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
		text, err := purpose(k).aead.Open(nil, box[KeyIDSize:boxHead], box[boxHead:], beside)
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

// OpenUpstream gives that token back.
func (s *Sealer) OpenUpstream(session caveat.SessionID, box []byte) (string, error) {
	text, err := s.open(box, session[:], func(k *sealKeys) *boxKey { return &k.upstream })
	return string(text), err
}

// SealRefresh seals all that a refresh needs.
func (s *Sealer) SealRefresh(text []byte) []byte {
	k := &s.ring().keys[0]
	return k.refresh.box(k.id, nil, text)
}

// openRefresh gives it back.
func (s *Sealer) openRefresh(box []byte) ([]byte, error) {
	return s.open(box, nil, func(k *sealKeys) *boxKey { return &k.refresh })
}
