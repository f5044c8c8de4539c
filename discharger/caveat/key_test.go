package caveat

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/secret"
)

func TestParsePublicKey(t *testing.T) {
	t.Parallel()
	// A key whose text has characters that the alphabets differ in.
	key := PublicKey(bytes.Repeat([]byte{0xfb, 0xff}, 16))
	for name, enc := range map[string]*base64.Encoding{
		"standard": base64.StdEncoding, "standard, unpadded": base64.RawStdEncoding,
		"URL": base64.URLEncoding, "URL, unpadded": base64.RawURLEncoding,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePublicKey(enc.EncodeToString(key[:]))
			if err != nil || got != key {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	if want := base64.StdEncoding.EncodeToString(key[:]); key.String() != want {
		t.Errorf("String: got %s, want %s", key, want)
	}

	good := key.String()
	for name, text := range map[string]string{
		"empty":             "",
		"31 bytes":          base64.StdEncoding.EncodeToString(key[:31]),
		"33 bytes":          base64.RawStdEncoding.EncodeToString(append(key[:], 1)),
		"line break":        good[:43] + "\n",
		"line break inside": good[:10] + "\n" + good[11:],
		"more line breaks":  good + "\n",
		"mixed alphabets":   "+" + strings.Repeat("-", 42),
		"trailing bits":     strings.Repeat("A", 42) + "B=",
		"space":             " " + good[:43],
		"only padding":      strings.Repeat("=", 44),
		"hex":               hex.EncodeToString(key[:]),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePublicKey(text)
			if err == nil || got != (PublicKey{}) {
				t.Errorf("got %v, %v", got, err)
			}
			if text != "" && err != nil && strings.Contains(err.Error(), text) {
				t.Errorf("the error repeats the text: %v", err)
			}
		})
	}
}

func TestPublicKeyText(t *testing.T) {
	t.Parallel()
	var (
		_ encoding.TextMarshaler   = PublicKey{}
		_ encoding.TextUnmarshaler = (*PublicKey)(nil)
	)
	want := fixedPair(t, 1).Public
	text, err := want.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var got PublicKey
	if err := got.UnmarshalText(text); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if err := got.UnmarshalText(text[1:]); err == nil || got != want {
		t.Errorf("after bad text: got %v, %v, want %v and an error", got, err, want)
	}
}

func TestPrivateKeyEncode(t *testing.T) {
	t.Parallel()
	pair := GenerateKey()
	if err := pair.Validate(); err != nil {
		t.Error(err)
	}
	text := pair.Private.Encode()
	got, err := ParsePrivateKey(text)
	if err != nil || got != pair.Private {
		t.Errorf("does not read back: %v", err)
	}
	got, err = ParsePrivateKey(text[:40])
	if err == nil || got != (PrivateKey{}) || strings.Contains(err.Error(), text[:40]) {
		t.Errorf("cut short: %v", err)
	}
}

// The key pair of Alice in RFC 7748, section 6.1.
func TestNewKeyPairVector(t *testing.T) {
	t.Parallel()
	private, _ := hex.DecodeString("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
	pair, err := NewKeyPair(PrivateKey{secret.Key(private)})
	if err != nil {
		t.Fatal(err)
	}
	want := "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
	if got := hex.EncodeToString(pair.Public[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestKeyPairRefused(t *testing.T) {
	t.Parallel()
	if pair, err := NewKeyPair(PrivateKey{}); !errors.Is(err, ErrWeakKey) || pair != (KeyPair{}) {
		t.Errorf("zero private key: got %v", err)
	}
	if err := (KeyPair{}).Validate(); !errors.Is(err, ErrWeakKey) {
		t.Errorf("zero pair: got %v", err)
	}
	a, b := fixedPair(t, 1), fixedPair(t, 2)
	if err := (KeyPair{Public: a.Public, Private: b.Private}).Validate(); err == nil {
		t.Error("pair of two halves is valid")
	}
}

// weakKeys are all points of low order, and spellings that X25519 takes for
// another number than they say.
var weakKeys = map[string]string{
	"0":                       "0000000000000000000000000000000000000000000000000000000000000000",
	"1":                       "0100000000000000000000000000000000000000000000000000000000000000",
	"order 8":                 "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"order 8, the other":      "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"p-1":                     "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"p":                       "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"p+1":                     "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"2^255-1":                 "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0 with top bit":          "0000000000000000000000000000000000000000000000000000000000000080",
	"base point, top bit set": "0900000000000000000000000000000000000000000000000000000000000080",
	"base point plus p":       "f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"2^256-1":                 "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func weakKey(tb testing.TB, text string) PublicKey {
	tb.Helper()
	raw, err := hex.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return PublicKey(raw)
}

func TestCheckPublicKey(t *testing.T) {
	t.Parallel()
	for name, text := range weakKeys {
		t.Run(name, func(t *testing.T) {
			if err := CheckPublicKey(weakKey(t, text)); !errors.Is(err, ErrWeakKey) {
				t.Errorf("got %v", err)
			}
		})
	}
	for range 50 {
		pair := GenerateKey()
		if err := CheckPublicKey(pair.Public); err != nil {
			t.Errorf("%s: %v", pair.Public, err)
		}
		pair.Public[31] |= 0x80
		if err := CheckPublicKey(pair.Public); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%s with top bit: got %v", pair.Public, err)
		}
	}
	// The largest canonical numbers that are not of low order.
	for _, text := range []string{
		"ebffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"fffeffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7e",
	} {
		if err := CheckPublicKey(weakKey(t, text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
