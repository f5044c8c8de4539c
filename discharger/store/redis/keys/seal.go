package keys

import (
	"crypto/aes"
	"crypto/cipher"
)

// Cipher returns the cipher that seals the revocations of a process.
func (l *Layout) Cipher(process string) (cipher.AEAD, error) {
	key := l.mac('p', process, "")
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
