package homeserver

import (
	"bytes"
	"testing"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// The library's own signatures are those that this package computes.
func TestChainIsTheLibrarys(t *testing.T) {
	t.Parallel()
	root, id := []byte("some root key"), []byte("some identifier")
	m, err := macaroon.New(root, id, "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	key := rawmacaroon.Key(root)
	sig := rawmacaroon.Hash(&key, id)
	same := func(what string, sig [rawmacaroon.Size]byte) {
		t.Helper()
		if !bytes.Equal(sig[:], m.Signature()) {
			t.Fatalf("%s: signatures differ", what)
		}
	}
	same("identifier", sig)
	if err := m.AddFirstPartyCaveat([]byte("condition")); err != nil {
		t.Fatal(err)
	}
	before := rawmacaroon.Hash(&sig, []byte("condition"))
	sig = before
	same("condition", sig)
	if err := m.AddThirdPartyCaveat([]byte("caveat root key"), []byte("sealed"), "there"); err != nil {
		t.Fatal(err)
	}
	vid := m.Caveats()[1].VerificationId
	sig = rawmacaroon.Hash2(&sig, vid, []byte("sealed"))
	same("third-party caveat", sig)

	found, ok := openVerificationID(&before, vid)
	if want := rawmacaroon.Key([]byte("caveat root key")); !ok || found != want {
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
	unbound := [rawmacaroon.Size]byte(d.Signature())
	d.Bind(m.Signature())
	if got := rawmacaroon.Bind(&sig, &unbound); !bytes.Equal(got[:], d.Signature()) {
		t.Error("bound signatures differ")
	}
	d.Bind(d.Signature())
	same2 := [rawmacaroon.Size]byte(d.Signature())
	if rawmacaroon.Bind(&same2, &same2) != same2 {
		t.Error("a signature bound to itself changes, which the library's does not")
	}
}
