package homeserver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"gopkg.in/macaroon.v2"
)

func TestKeyedHashIsHMAC(t *testing.T) {
	t.Parallel()
	random := seeded(4)
	for _, size := range []int{0, 1, 31, 32, 63, 64, 65, 300, 447, 448, 449, 5000} {
		var key [32]byte
		text := make([]byte, size)
		_, _ = random.Read(key[:])
		_, _ = random.Read(text)
		h := hmac.New(sha256.New, key[:])
		h.Write(text)
		if got := keyedHash(&key, text[:size/3], text[size/3:]); !bytes.Equal(got[:], h.Sum(nil)) {
			t.Errorf("%d bytes: not the HMAC", size)
		}
	}
}

// The library's own signatures are those that this package computes.
func TestChainIsTheLibrarys(t *testing.T) {
	t.Parallel()
	root, id := []byte("some root key"), []byte("some identifier")
	m, err := macaroon.New(root, id, "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	key := macaroonKey(root)
	sig := keyedHash(&key, id)
	same := func(what string, sig [hashSize]byte) {
		t.Helper()
		if !bytes.Equal(sig[:], m.Signature()) {
			t.Fatalf("%s: signatures differ", what)
		}
	}
	same("identifier", sig)
	if err := m.AddFirstPartyCaveat([]byte("condition")); err != nil {
		t.Fatal(err)
	}
	before := keyedHash(&sig, []byte("condition"))
	sig = before
	same("condition", sig)
	if err := m.AddThirdPartyCaveat([]byte("caveat root key"), []byte("sealed"), "there"); err != nil {
		t.Fatal(err)
	}
	vid := m.Caveats()[1].VerificationId
	sig = keyedHash2(&sig, vid, []byte("sealed"))
	same("third-party caveat", sig)

	found, ok := openVerificationID(&before, vid)
	if want := macaroonKey([]byte("caveat root key")); !ok || found != want {
		t.Error("root key of the caveat not found again")
	}
	for i := range vid {
		changed := bytes.Clone(vid)
		changed[i] ^= 1
		if _, ok := openVerificationID(&before, changed); ok {
			t.Fatalf("verification id opens with byte %d changed", i)
		}
	}
	for _, wrong := range [][]byte{nil, vid[:vidSize-1], append(bytes.Clone(vid), 0)} {
		if _, ok := openVerificationID(&before, wrong); ok {
			t.Errorf("verification id of %d bytes opens", len(wrong))
		}
	}

	d, err := macaroon.New([]byte("caveat root key"), []byte("sealed"), "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	unbound := [hashSize]byte(d.Signature())
	d.Bind(m.Signature())
	if got := boundTo(&sig, &unbound); !bytes.Equal(got[:], d.Signature()) {
		t.Error("bound signatures differ")
	}
	d.Bind(d.Signature())
	same2 := [hashSize]byte(d.Signature())
	if boundTo(&same2, &same2) != same2 {
		t.Error("a signature bound to itself changes, which the library's does not")
	}
}
