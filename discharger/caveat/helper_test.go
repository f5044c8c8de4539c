package caveat

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

var versions = []Version{V1, V2, V3}

var testRootKey = []byte("0123456789abcdef01234567")

const testCondition = `session {"id":"AAECAwQFBgcICQoLDA0ODw","user":"@alice:example.org","device":"ABCDEFGHIJ","minted":1764000000000,"mode":"rotate"}`

// fixedPair is a key pair made of one byte, the same in every run.
func fixedPair(tb testing.TB, fill byte) KeyPair {
	tb.Helper()
	var private PrivateKey
	for i := range private.Key {
		private.Key[i] = fill
	}
	pair, err := NewKeyPair(private)
	if err != nil {
		tb.Fatal(err)
	}
	return pair
}

// world is a discharger with one homeserver.
type world struct {
	discharger, homeserver KeyPair
	opener                 *Opener
}

func newWorld(tb testing.TB) world {
	tb.Helper()
	w := world{discharger: fixedPair(tb, 1), homeserver: fixedPair(tb, 2)}
	w.opener = mustOpener(tb, OpenerConfig{
		Keys:        []KeyPair{w.discharger},
		Homeservers: []Homeserver{{Name: "example.org", Key: w.homeserver.Public}},
	})
	return w
}

func mustOpener(tb testing.TB, cfg OpenerConfig) *Opener {
	tb.Helper()
	o, err := NewOpener(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func (w world) seal(tb testing.TB, version Version) []byte {
	tb.Helper()
	id, err := Seal(SealParams{
		Version:    version,
		Homeserver: w.homeserver,
		Discharger: w.discharger.Public,
		RootKey:    testRootKey,
		Condition:  testCondition,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// sealRaw puts any bytes into a box and writes the outer part around it, from
// a homeserver's public key that need not be the one of the private key.
func sealRaw(version Version, from PublicKey, private PrivateKey, to PublicKey, plain []byte) []byte {
	var nonce [nonceSize]byte
	rand.Read(nonce[:])
	sealed := box.Seal(nil, plain, &nonce, (*[keySize]byte)(&to), (*[keySize]byte)(&private.Key))
	if version == V1 {
		std := base64.StdEncoding.EncodeToString
		text := fmt.Sprintf(`{"ThirdPartyPublicKey":%q,"FirstPartyPublicKey":%q,"Nonce":%q,"Id":%q}`,
			to, from, std(nonce[:]), std(sealed))
		return []byte(std([]byte(text)))
	}
	id := append([]byte{byte(version)}, to[:prefixSize]...)
	id = append(id, from[:]...)
	id = append(id, nonce[:]...)
	return append(id, sealed...)
}

// sealPlain seals any bytes from the homeserver of w.
func (w world) sealPlain(version Version, plain []byte) []byte {
	return sealRaw(version, w.homeserver.Public, w.homeserver.Private, w.discharger.Public, plain)
}

// isZero reports whether nothing at all is set.
func (opened Opened) isZero() bool {
	return opened.Homeserver == "" && opened.HomeserverKey == PublicKey{} && opened.KeyIndex == 0 &&
		opened.Version == 0 && opened.RootKey == nil && opened.Condition == nil && opened.StdPrefix == ""
}
