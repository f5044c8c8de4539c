package homeserver

import (
	"golang.org/x/crypto/nacl/secretbox"

	"github.com/discharger/discharger/discharger/rawmacaroon"
)

const (
	nonceSize = 24
	vidSize   = nonceSize + secretbox.Overhead + rawmacaroon.Size
)

// openVerificationID finds the first key of a discharge's chain again. It was
// encrypted under the signature before the caveat.
func openVerificationID(sig *[rawmacaroon.Size]byte, vid []byte) (key [rawmacaroon.Size]byte, ok bool) {
	if len(vid) != vidSize {
		return key, false
	}
	nonce := [nonceSize]byte(vid)
	_, ok = secretbox.Open(key[:0], vid[nonceSize:], &nonce, sig)
	return key, ok
}
