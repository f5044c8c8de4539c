package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/testkit"
)

func encodeBundleT(t testing.TB, s macaroon.Slice) string {
	t.Helper()
	text, err := Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestBundleForms(t *testing.T) {
	t.Parallel()
	three := testkit.Bundle(t, 3, "https://a.example")
	swapped := macaroon.Slice{three[0], three[2], three[1], three[3]}
	for _, tc := range []struct {
		name    string
		in      macaroon.Slice
		compact bool
	}{
		{"no discharge", testkit.Bundle(t, 1, "")[:1], false},
		{"one", testkit.Bundle(t, 1, "https://a.example"), true},
		{"no location", testkit.Bundle(t, 2, ""), true},
		{"three", three, true},
		{"in another order", swapped, false},
		{"one missing", three[:3], false},
		{"one too many", append(macaroon.Slice{}, append(three, three[1])...), false},
		{"nothing to discharge", macaroon.Slice{testkit.Bundle(t, 0, "")[0], three[1]}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			text := encodeBundleT(t, tc.in)
			b, err := Parse(text)
			if err != nil || b.Compact != tc.compact {
				t.Fatalf("compact is %v, error %v", b != nil && b.Compact, err)
			}
			standard, err := EncodeStandard(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			for _, form := range []string{text, standard} {
				got, err := Decode(form)
				if err != nil || !sameMacaroons(got, tc.in) {
					t.Errorf("decoded to something else, %v", err)
				}
			}
			want, err := tc.in.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			if standard != strictURL.EncodeToString(want) {
				t.Error("the standard form is not the library's")
			}
		})
	}
}

// Macaroons of version 1 come out as version 2 with the same signatures.
func TestBundleOfOldMacaroons(t *testing.T) {
	t.Parallel()
	access, err := macaroon.New([]byte("root"), []byte("alice"), "here", macaroon.V1)
	if err != nil {
		t.Fatal(err)
	}
	if err := access.AddThirdPartyCaveat([]byte("key"), []byte("eyJ9"), "there"); err != nil {
		t.Fatal(err)
	}
	d, err := macaroon.New([]byte("key"), []byte("eyJ9"), "", macaroon.V1)
	if err != nil {
		t.Fatal(err)
	}
	d.Bind(access.Signature())
	got, err := Decode(encodeBundleT(t, macaroon.Slice{access, d}))
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Version() != macaroon.V2 || got[1].Version() != macaroon.V2 {
		t.Error("not version 2")
	}
	if _, err := got[0].VerifySignature([]byte("root"), got[1:]); err != nil {
		t.Error(err)
	}
}

func TestEncodeBundleRefuses(t *testing.T) {
	t.Parallel()
	good := testkit.Bundle(t, 1, "")
	large, err := macaroon.New([]byte("k"), bytes.Repeat([]byte("x"), MaxLength), "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	var many macaroon.Slice
	for range MaxMacaroons + 1 {
		many = append(many, good[0])
	}
	busy := good[0].Clone()
	for range MaxCaveats {
		_ = busy.AddFirstPartyCaveat([]byte("c"))
	}
	var placed macaroon.Macaroon // a first-party caveat with a location
	if err := placed.UnmarshalJSON([]byte(`{"i":"x","c":[{"i":"c","l":"somewhere"}],"s64":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`)); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]macaroon.Slice{
		"nothing": nil, "nil": {nil}, "nil discharge": {good[0], nil}, "too large": {large}, "too many": many,
		"too many caveats": {busy}, "condition with a location": {&placed},
	} {
		t.Run(name, func(t *testing.T) {
			if text, err := Encode(s); err == nil || text != "" {
				t.Errorf("%s: encoded to %.20q", name, text)
			}
		})
	}
}

func TestParseBundleIsStrict(t *testing.T) {
	t.Parallel()
	sig := append([]byte{6, 32}, make([]byte, 32)...)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	bare := join([]byte{2, 2, 1, 'i', 0, 0}, sig)
	for name, data := range map[string][]byte{
		"minimal":              bare,
		"empty identifier":     join([]byte{2, 2, 0, 0, 0}, sig),
		"location":             join([]byte{2, 1, 1, 'l', 2, 1, 'i', 0, 0}, sig),
		"condition":            join([]byte{2, 2, 1, 'i', 0, 2, 1, 'c', 0, 0}, sig),
		"empty condition":      join([]byte{2, 2, 1, 'i', 0, 2, 0, 0, 0}, sig),
		"third-party":          join([]byte{2, 2, 1, 'i', 0, 1, 1, 'l', 2, 1, 'c', 4, 1, 'v', 0, 0}, sig),
		"compact":              join([]byte{1, 2, 2, 1, 'i', 0, 2, 1, 'c', 4, 1, 'v', 0, 0}, sig, []byte{2, 2, 0, 0, 0}, sig),
		"two-byte length":      join([]byte{2, 2, 0x80, 1}, make([]byte, 128), []byte{0, 0}, sig),
		"two macaroons":        join(bare, bare),
		"compact, discharge":   join([]byte{1, 2, 2, 1, 'i', 0, 2, 1, 'c', 4, 1, 'v', 0, 0}, sig, []byte{2, 1, 1, 'l', 2, 0, 0, 2, 1, 'c', 0, 0}, sig),
		"compact, odd caveats": join([]byte{1, 2, 2, 1, 'i', 0, 2, 1, 'a', 0, 2, 1, 'c', 4, 1, 'v', 0, 2, 1, 'b', 0, 0}, sig, []byte{2, 2, 0, 0, 0}, sig),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse(strictURL.EncodeToString(data)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	for name, data := range map[string][]byte{
		"nothing":                    {},
		"mark alone":                 {1},
		"version 1":                  []byte("0010identifier x\n"),
		"version 3":                  join([]byte{3, 2, 1, 'i', 0, 0}, sig),
		"no identifier":              join([]byte{2, 0, 0}, sig),
		"verification id in header":  join([]byte{2, 2, 1, 'i', 4, 1, 'v', 0, 0}, sig),
		"fields out of order":        join([]byte{2, 2, 1, 'i', 1, 1, 'l', 0, 0}, sig),
		"field twice":                join([]byte{2, 2, 1, 'i', 2, 1, 'i', 0, 0}, sig),
		"unknown field":              join([]byte{2, 2, 1, 'i', 3, 1, 'x', 0, 0}, sig),
		"empty location":             join([]byte{2, 1, 0, 2, 1, 'i', 0, 0}, sig),
		"empty verification id":      join([]byte{2, 2, 1, 'i', 0, 2, 1, 'c', 4, 0, 0, 0}, sig),
		"condition with a location":  join([]byte{2, 2, 1, 'i', 0, 1, 1, 'l', 2, 1, 'c', 0, 0}, sig),
		"padded length":              join([]byte{2, 2, 0x81, 0, 'i', 0, 0}, sig),
		"three-byte length":          join([]byte{2, 2, 0x81, 0x80, 0, 'i', 0, 0}, sig),
		"padded field":               join([]byte{2, 0x82, 0, 1, 'i', 0, 0}, sig),
		"length beyond the end":      {2, 2, 0xff, 0x7f, 'i'},
		"no signature":               {2, 2, 1, 'i', 0, 0},
		"short signature":            join([]byte{2, 2, 1, 'i', 0, 0, 6, 31}, make([]byte, 31)),
		"long signature":             join([]byte{2, 2, 1, 'i', 0, 0, 6, 33}, make([]byte, 33)),
		"other field as signature":   join([]byte{2, 2, 1, 'i', 0, 0, 5, 32}, make([]byte, 32)),
		"a byte after the end":       append(bytes.Clone(bare), 2),
		"zeros after the end":        append(bytes.Clone(bare), 0, 0),
		"mark twice":                 join([]byte{1, 1}, bare, bare),
		"mark before the second":     join(bare, []byte{1}, bare),
		"compact, no discharge":      join([]byte{1}, bare),
		"compact, discharge missing": join([]byte{1, 2, 2, 1, 'i', 0, 2, 1, 'c', 4, 1, 'v', 0, 0}, sig),
		"compact, with identifier":   join([]byte{1, 2, 2, 1, 'i', 0, 2, 1, 'c', 4, 1, 'v', 0, 0}, sig, []byte{2, 2, 1, 'c', 0, 0}, sig),
		"compact, discharge of none": join([]byte{1}, bare, []byte{2, 2, 0, 0, 0}, sig),
		"too many macaroons":         bytes.Repeat(bare, MaxMacaroons+1),
		"too many caveats":           join([]byte{2, 2, 1, 'i', 0}, bytes.Repeat([]byte{2, 1, 'c', 0}, MaxCaveats+1), []byte{0}, sig),
	} {
		t.Run(name, func(t *testing.T) {
			b, err := Parse(strictURL.EncodeToString(data))
			if !errors.Is(err, ErrMalformed) || b != nil {
				t.Errorf("%s: error %v", name, err)
			}
		})
	}
	text := strictURL.EncodeToString(bare)
	for _, bad := range []string{text + "A", text + "=", text + "==", text + "\n", "\n" + text, text[:8] + "\r\n" + text[8:], strings.ToLower(text), " " + text, strings.Repeat("A", MaxLength+1)} {
		t.Run(fmt.Sprintf("%.40q", bad), func(t *testing.T) {
			if _, err := Parse(bad); !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v", err)
			}
		})
	}
	if _, err := Parse(strings.Replace(encodeBundleT(t, testkit.Bundle(t, 1, "???>>>")), "_", "/", 1)); err == nil {
		t.Error("the standard alphabet is accepted")
	}
}

func TestParseBundleCutShort(t *testing.T) {
	t.Parallel()
	s := testkit.Bundle(t, 2, "https://a.example")
	for _, encode := range []func(macaroon.Slice) (string, error){Encode, EncodeStandard} {
		text, err := encode(s)
		if err != nil {
			t.Fatal(err)
		}
		data, err := strictURL.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		whole := 0
		for i := range data {
			if _, err := Parse(strictURL.EncodeToString(data[:i])); err == nil {
				whole++ // a standard bundle with a discharge less
			}
		}
		if b, _ := Parse(text); whole > 0 && (b.Compact || whole > 2) {
			t.Errorf("%d prefixes parse", whole)
		}
	}
}

// FuzzParseBundle: a bundle that parses is encoded as the same text, means the
// same to the macaroon library, and an error leaves nothing.
func FuzzParseBundle(f *testing.F) {
	for n := range 3 {
		s := testkit.Bundle(f, n, "https://a.example")
		f.Add(encodeBundleT(f, s))
		standard, err := EncodeStandard(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(standard)
	}
	f.Add("AQICAWkAAgFjBAF2AAA")
	f.Fuzz(func(t *testing.T, text string) {
		b, err := Parse(text)
		if err != nil {
			if b != nil || !errors.Is(err, ErrMalformed) {
				t.Fatalf("%v beside %v", b, err)
			}
			return
		}
		s, err := b.Macaroons()
		if err != nil {
			t.Fatalf("the library does not decode it: %v", err)
		}
		if len(s) != 1+len(b.Discharges) {
			t.Fatalf("%d macaroons", len(s))
		}
		var again string
		if b.Compact {
			again, err = Encode(s)
		} else {
			again, err = EncodeStandard(s)
		}
		if err != nil || again != text {
			t.Fatalf("written as\n%s, %v, read as\n%s", again, err, text)
		}
	})
}

// sameMacaroons reports whether two slices have the same encoding.
func sameMacaroons(a, b macaroon.Slice) bool {
	x, err1 := a.MarshalBinary()
	y, err2 := b.MarshalBinary()
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}
