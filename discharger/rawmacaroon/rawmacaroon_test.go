package rawmacaroon

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"gopkg.in/macaroon.v2"
	"pgregory.net/rapid"
)

func TestHashIsHMAC(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		key := [Size]byte(rapid.SliceOfN(rapid.Byte(), Size, Size).Draw(t, "key"))
		a := rapid.SliceOfN(rapid.Byte(), 0, 2000).Draw(t, "a")
		b := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "b")
		h := hmac.New(sha256.New, key[:])
		h.Write(a)
		h.Write(b)
		if got := Hash(&key, a, b); !bytes.Equal(got[:], h.Sum(nil)) {
			t.Fatalf("got %x, want %x", got, h.Sum(nil))
		}
	})
}

// Both implementations build the same macaroon.
func TestMacaroonEqualsLibrary(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rootKey := rapid.SliceOfN(rapid.Byte(), 1, 80).Draw(t, "root key")
		id := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "id")
		want, err := macaroon.New(rootKey, id, "", macaroon.V2)
		if err != nil {
			t.Fatal(err)
		}
		sig := Key(rootKey)
		sig = Hash(&sig, id)
		v := Macaroon{ID: id}
		for range rapid.IntRange(0, 5).Draw(t, "caveats") {
			c := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "caveat")
			if err := want.AddFirstPartyCaveat(c); err != nil {
				t.Fatal(err)
			}
			sig = Hash(&sig, c)
			v.Caveats = append(v.Caveats, Caveat{ID: c})
		}
		v.Signature = sig[:]
		enc, err := want.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Append(nil); !bytes.Equal(got, enc) {
			t.Fatalf("got  %x\nwant %x", got, enc)
		}
		access, err := macaroon.New([]byte("k"), []byte("access"), "", macaroon.V2)
		if err != nil {
			t.Fatal(err)
		}
		bound := want.Clone()
		bound.Bind(access.Signature())
		if got := Bind((*[Size]byte)(access.Signature()), &sig); !bytes.Equal(got[:], bound.Signature()) {
			t.Fatalf("bound: got %x, want %x", got, bound.Signature())
		}
	})
}

// A parsed macaroon encodes to the same bytes, and the library parses those bytes
// to the same macaroon.
func FuzzParse(f *testing.F) {
	m, _ := macaroon.New([]byte("k"), []byte("id"), "here", macaroon.V2)
	_ = m.AddFirstPartyCaveat([]byte("time-before 2026-11-24T10:00:00Z"))
	_ = m.AddThirdPartyCaveat([]byte("root"), []byte("caveat"), "there")
	seed, _ := m.MarshalBinary()
	f.Add(seed)
	f.Add(append(bytes.Clone(seed), seed...))
	f.Fuzz(func(t *testing.T, in []byte) {
		var v Macaroon
		rest, caveats, err := Parse(in, &v, nil)
		if err != nil {
			return
		}
		v.Caveats = caveats
		read := in[:len(in)-len(rest)]
		if got := v.Append(nil); !bytes.Equal(got, read) {
			t.Fatalf("read  %x\nwrote %x", read, got)
		}
		var m macaroon.Macaroon
		if err := m.UnmarshalBinary(read); err != nil {
			t.Fatalf("the library does not parse %x: %v", read, err)
		}
		if !bytes.Equal(m.Id(), v.ID) || len(m.Caveats()) != len(caveats) || !bytes.Equal(m.Signature(), v.Signature) {
			t.Fatalf("the library parses %x differently", read)
		}
	})
}
