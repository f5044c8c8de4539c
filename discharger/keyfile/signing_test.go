package keyfile

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSigning(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "signing.pem")
	if _, err := LoadSigning(path, OwnerOnly); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := AddSigning(path, OwnerOnly, Used); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("added to no file: %v", err)
	}
	made, err := NewSigning(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := NewSigning(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	if _, err := AddSigning(path, OwnerOnly, Used); err != nil {
		t.Fatal(err)
	}
	keys, err := LoadSigning(path, OwnerOnly)
	if err != nil || len(keys) != 2 || !keys[1].Equal(made[0]) || keys[0].N.BitLen() != signingBits {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	is := func(k *rsa.PublicKey) func(*rsa.PublicKey) bool {
		return func(other *rsa.PublicKey) bool { return other.Equal(k) }
	}
	if err := RetireSigning(path, OwnerOnly, is(&keys[0].PublicKey)); err == nil || !strings.Contains(err.Error(), "the one in use") {
		t.Errorf("retired the one in use: %v", err)
	}
	if err := RetireSigning(path, OwnerOnly, is(&made[0].PublicKey)); err != nil {
		t.Error(err)
	}
	if left, err := LoadSigning(path, OwnerOnly); err != nil || len(left) != 1 || !left[0].Equal(keys[0]) {
		t.Errorf("retired one: %d keys, %v", len(left), err)
	}
	if err := RetireSigning(path, OwnerOnly, is(&made[0].PublicKey)); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("retired twice: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSigning(path, OwnerOnly); !errors.Is(err, ErrExposed) {
		t.Errorf("readable for the group: %v", err)
	}
	if _, err := LoadSigning(path, GroupToo); err != nil {
		t.Error(err)
	}
}

// A staged key is published and does not sign until it is used.
func TestSigningStaged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "signing.pem")
	if _, err := NewSigning(path); err != nil {
		t.Fatal(err)
	}
	staged, err := AddSigning(path, OwnerOnly, Staged)
	if err != nil {
		t.Fatal(err)
	}
	states := func() (s []State) {
		t.Helper()
		keys, err := ListSigning(path, OwnerOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			s = append(s, k.State)
		}
		return s
	}
	if got := states(); !slices.Equal(got, []State{Used, Staged}) {
		t.Errorf("states are %v", got)
	}
	if keys, err := LoadSigning(path, OwnerOnly); err != nil || len(keys) != 2 || keys[0].PublicKey.Equal(staged) {
		t.Errorf("%d keys, %v, or a staged one signs", len(keys), err)
	}
	if err := UseSigning(path, OwnerOnly, func(k *rsa.PublicKey) bool { return k.Equal(staged) }); err != nil {
		t.Fatal(err)
	}
	if got := states(); !slices.Equal(got, []State{Used, Previous}) {
		t.Errorf("states are %v", got)
	}
	if keys, err := LoadSigning(path, OwnerOnly); err != nil || !keys[0].PublicKey.Equal(staged) {
		t.Errorf("another key signs, %v", err)
	}
	if err := UseSigning(path, OwnerOnly, func(*rsa.PublicKey) bool { return false }); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("used an unknown key: %v", err)
	}
}

func TestSigningRefuses(t *testing.T) {
	t.Parallel()
	block := func(kind string, key any) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	good, err := rsa.GenerateKey(rand.Reader, minSigning)
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	one := block(signingBlock, good)
	for name, tt := range map[string]struct{ text, want string }{
		"empty":       {"\n", "has no key"},
		"not PEM":     {"hunter2", "not PEM"},
		"text after":  {one + "hunter2", "not PEM"},
		"cut":         {one[:len(one)/2], "not a PRIVATE KEY"},
		"other kind":  {block("RSA PRIVATE KEY", good), "not a PRIVATE KEY"},
		"other key":   {block(signingBlock, other), "key 1 is not an RSA key"},
		"short":       {one + block(signingBlock, short), "key 2 has 1024 bits"},
		"twice":       {one + one, "key 2 is a duplicate"},
		"header":      {strings.Replace(one, "-----\n", "-----\nState: used\n\n", 1), "key 1 has a PEM header"},
		"two headers": {strings.Replace(one, "-----\n", "-----\nA: b\nState: staged\n\n", 1), "key 1 has a PEM header"},
		"all staged":  {strings.Replace(one, "-----\n", "-----\nState: staged\n\n", 1), "every key is staged"},
		"damaged":     {strings.Replace(one, one[40:60], one[60:80], 1), "key 1 is not an RSA key"},
	} {
		keys, err := decodeSigning([]byte(tt.text))
		if err == nil || keys != nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %d keys, %v; want %s", name, len(keys), err, tt.want)
		}
	}
	if keys, err := decodeSigning([]byte("\n" + one + "\n\n")); err != nil || len(keys) != 1 {
		t.Errorf("%d keys, %v", len(keys), err)
	}
}

// A decoded file has a key; an error comes without keys. No RSA key is among the seeds,
// since checking one takes a fuzzer seconds.
func FuzzSigning(f *testing.F) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		f.Fatal(err)
	}
	one := pem.EncodeToMemory(&pem.Block{Type: signingBlock, Bytes: der})
	f.Add(one)
	f.Add(append(one, one...))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nA: b\n\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("hunter2"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if keys, err := decodeSigning(data); (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
	})
}
