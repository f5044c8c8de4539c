package caveat

import (
	"bytes"
	"errors"
	"sort"
	"strings"
	"testing"
)

// The layout drawn in the package comment, with a nonce that is known.
func TestSealLayout(t *testing.T) {
	t.Parallel()
	homeserver, discharger := fixedPair(t, 2), fixedPair(t, 1)
	for _, version := range []Version{V2, V3} {
		nonce := bytes.Repeat([]byte{7}, nonceSize)
		sealer, err := NewSealer(SealerConfig{Version: version, Homeserver: homeserver, Discharger: discharger.Public})
		if err != nil {
			t.Fatal(err)
		}
		id, err := sealer.seal((*[nonceSize]byte)(nonce), []byte("root"), "cond")
		if err != nil {
			t.Fatal(err)
		}
		outer := append([]byte{byte(version)}, discharger.Public[:4]...)
		outer = append(append(outer, homeserver.Public[:]...), nonce...)
		if !bytes.HasPrefix(id, outer) {
			t.Errorf("V%d: got %x, want it to begin with %x", version, id, outer)
		}
		want := map[Version]string{V2: "\x02\x04rootcond", V3: "\x03\x04root\x04std:cond"}[version]
		if got, ok := naiveOpen(discharger, id); !ok || string(got) != want {
			t.Errorf("V%d: sealed %q, want %q", version, got, want)
		}
	}
}

func TestSealNonces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := make(map[string]bool)
	for range 100 {
		id := w.seal(t, V2)
		seen[string(id[nonceAt:boxAt])] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d nonces in 100 caveats", len(seen))
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	homeserver, discharger := fixedPair(t, 2), fixedPair(t, 1)
	for name, test := range map[string]struct {
		change func(*SealParams)
		is     error
	}{
		"version 0":             {change: func(p *SealParams) { p.Version = 0 }},
		"version 4":             {change: func(p *SealParams) { p.Version = 4 }},
		"no root key":           {change: func(p *SealParams) { p.RootKey = nil }},
		"no condition":          {change: func(p *SealParams) { p.Condition = "" }},
		"condition too long":    {change: func(p *SealParams) { p.Condition = strings.Repeat("c", MaxBinarySize) }},
		"V1 condition too long": {change: func(p *SealParams) { p.Version, p.Condition = V1, strings.Repeat("c", MaxTextSize) }},
		"V1 not UTF-8":          {change: func(p *SealParams) { p.Version, p.Condition = V1, "\xff" }},
		"wrong public key":      {change: func(p *SealParams) { p.Homeserver.Public = discharger.Public }},
		"no private key":        {change: func(p *SealParams) { p.Homeserver.Private = PrivateKey{} }, is: ErrWeakKey},
		"no discharger":         {change: func(p *SealParams) { p.Discharger = PublicKey{} }, is: ErrWeakKey},
		"discharger top bit":    {change: func(p *SealParams) { p.Discharger[31] |= 0x80 }, is: ErrWeakKey},
	} {
		t.Run(name, func(t *testing.T) {
			p := SealParams{
				Version: V2, Homeserver: homeserver, Discharger: discharger.Public,
				RootKey: testRootKey, Condition: testCondition,
			}
			test.change(&p)
			id, err := Seal(p)
			if err == nil || id != nil {
				t.Errorf("got %d bytes, %v", len(id), err)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("got %v, want %v", err, test.is)
			}
		})
	}
}

// Every caveat from Seal opens, up to its limits.
func TestSealLargest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, version := range versions {
		s, err := NewSealer(SealerConfig{Version: version, Homeserver: w.homeserver, Discharger: w.discharger.Public})
		if err != nil {
			t.Fatal(err)
		}
		tooLong := sort.Search(MaxTextSize, func(n int) bool {
			_, err := s.Seal(testRootKey, strings.Repeat("c", n+1))
			return err != nil
		}) + 1
		if tooLong <= maxCondition {
			t.Errorf("V%d: no condition of %d bytes can be sealed, up to %d are allowed", version, tooLong, maxCondition)
		}
		// The size of a condition that V1 quotes once more.
		if _, err := s.Seal(testRootKey, strings.Repeat(`"`, maxCondition)); err != nil {
			t.Errorf("V%d of quotes: %v", version, err)
		}
		for _, n := range []int{1, 100, maxCondition, tooLong - 1} {
			id, err := s.Seal(testRootKey, strings.Repeat("c", n))
			if err != nil {
				t.Fatalf("V%d of %d bytes: %v", version, n, err)
			}
			if got, err := w.opener.Open(id); err != nil || len(got.Condition) != n {
				t.Errorf("V%d of %d bytes: got %d, %v", version, n, len(got.Condition), err)
			}
		}
	}
}
