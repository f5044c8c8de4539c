package caveat

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, version := range versions {
		id := w.seal(t, version)
		kept := bytes.Clone(id)
		got, err := w.opener.Open(id)
		if err != nil {
			t.Errorf("V%d: %v", version, err)
			continue
		}
		if got.Homeserver != "example.org" || got.HomeserverKey != w.homeserver.Public || got.KeyIndex != 0 ||
			got.Version != version || !bytes.Equal(got.RootKey, testRootKey) ||
			string(got.Condition) != testCondition || got.StdPrefix != "" {
			t.Errorf("V%d: got %+v", version, got)
		}
		// Appending to one part must not write into the other.
		_ = append(got.RootKey, "overwrite"...)
		if string(got.Condition) != testCondition {
			t.Errorf("V%d: condition changed with the root key", version)
		}
		if !bytes.Equal(id, kept) {
			t.Errorf("V%d: id changed", version)
		}
	}
}

// Two own keys, one homeserver in the middle of a key change, and another.
func TestOpenWithSeveralKeys(t *testing.T) {
	t.Parallel()
	own := []KeyPair{fixedPair(t, 1), fixedPair(t, 2)}
	registered := []struct {
		name string
		pair KeyPair
	}{{"a.example", fixedPair(t, 3)}, {"a.example", fixedPair(t, 4)}, {"b.example", fixedPair(t, 5)}}
	cfg := OpenerConfig{Keys: own}
	for _, r := range registered {
		cfg.Homeservers = append(cfg.Homeservers, Homeserver{Name: r.name, Key: r.pair.Public})
	}
	o := mustOpener(t, cfg)
	if o.PublicKey() != own[0].Public {
		t.Errorf("advertised %s, want the first", o.PublicKey())
	}
	for _, version := range versions {
		for i, to := range own {
			for _, from := range registered {
				id, err := Seal(SealParams{
					Version: version, Homeserver: from.pair, Discharger: to.Public,
					RootKey: testRootKey, Condition: testCondition,
				})
				if err != nil {
					t.Fatal(err)
				}
				got, err := o.Open(id)
				if err != nil || got.KeyIndex != i || got.Homeserver != from.name || got.HomeserverKey != from.pair.Public {
					t.Errorf("V%d: got %v, %v; want key %d, %s", version, got, err, i, from.name)
				}
			}
		}
	}
}

// The order of checks decides the error of a caveat with two faults.
func TestOpenErrorOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stranger, rogue := fixedPair(t, 8), fixedPair(t, 9)
	retired := mustOpener(t, OpenerConfig{Keys: []KeyPair{w.discharger}, Retired: [][4]byte{[4]byte(stranger.Public[:4])}})
	empty := mustOpener(t, OpenerConfig{Keys: []KeyPair{w.discharger}})
	plain := []byte("anything")
	for _, version := range versions {
		for name, test := range map[string]struct {
			opener *Opener
			id     []byte
			want   error
		}{
			"for another, from a stranger": {w.opener, sealRaw(version, rogue.Public, rogue.Private, stranger.Public, plain), ErrNotOurs},
			"for another":                  {w.opener, sealRaw(version, w.homeserver.Public, w.homeserver.Private, stranger.Public, plain), ErrNotOurs},
			"from a stranger":              {w.opener, sealRaw(version, rogue.Public, rogue.Private, w.discharger.Public, plain), ErrUnknownHomeserver},
			"no homeserver registered":     {empty, w.seal(t, version), ErrUnknownHomeserver},
			"retired":                      {retired, sealRaw(version, w.homeserver.Public, w.homeserver.Private, stranger.Public, plain), ErrRetired},
			"retired, from another":        {retired, sealRaw(version, rogue.Public, rogue.Private, stranger.Public, plain), ErrRetired},
			"in another's name":            {w.opener, sealRaw(version, w.homeserver.Public, rogue.Private, w.discharger.Public, plain), ErrMalformed},
		} {
			t.Run(fmt.Sprintf("V%d, %s", version, name), func(t *testing.T) {
				got, err := test.opener.Open(test.id)
				if !errors.Is(err, test.want) || !got.isZero() {
					t.Errorf("got %v, %v", got, err)
				}
				for _, other := range []error{ErrNotOurs, ErrRetired, ErrUnknownHomeserver, ErrMalformed} {
					if other != test.want && errors.Is(err, other) {
						t.Errorf("matches %v too", other)
					}
				}
			})
		}
	}
}

// Every caveat that was cut, lengthened, or has one bit changed is refused.
func TestOpenDamaged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	refused := func(version Version, what string, id []byte) {
		got, err := w.opener.Open(id)
		if err == nil || !got.isZero() {
			t.Errorf("V%d, %s: got %v, %v", version, what, got, err)
		}
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNotOurs) && !errors.Is(err, ErrUnknownHomeserver) {
			t.Errorf("V%d, %s: error of no class: %v", version, what, err)
		}
	}
	for _, version := range versions {
		id := w.seal(t, version)
		for n := range id {
			refused(version, fmt.Sprintf("first %d bytes", n), id[:n])
			refused(version, fmt.Sprintf("without byte %d", n), slices.Delete(bytes.Clone(id), n, n+1))
			for bit := range 8 {
				flipped := bytes.Clone(id)
				flipped[n] ^= 1 << bit
				refused(version, fmt.Sprintf("byte %d bit %d", n, bit), flipped)
			}
		}
		for _, tail := range []string{"\x00", "\n", " ", "=", "A", "\r\n"} {
			refused(version, fmt.Sprintf("with %q at the end", tail), append(bytes.Clone(id), tail...))
		}
	}
	for _, id := range []string{"", "\x00", "\x01", "\x04", "\x03\x00", "e", "eyJ4IjoxfQ==", "eyJ9", "session {}"} {
		refused(0, fmt.Sprintf("%q", id), []byte(id))
	}
}

// Damage inside the box, which only a registered homeserver can do.
func TestOpenBadSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	field := func(s string) string { return string(binary.AppendUvarint(nil, uint64(len(s)))) + s }
	overflow := strings.Repeat("\xff", 9) + "\x01" // 2⁶⁴-1
	tooLong := strings.Repeat("\xff", 10) + "\x01" // no uint64 at all
	std := base64.StdEncoding.EncodeToString([]byte("root"))
	for _, test := range []struct {
		version Version
		name    string
		plain   string
	}{
		{V2, "nothing", ""},
		{V2, "only a version", "\x02"},
		{V2, "inner version 3", "\x03" + field("root") + "cond"},
		{V3, "inner version 2", "\x02" + field("root") + field("std:") + "cond"},
		{V2, "no root key", "\x02" + field("") + "cond"},
		{V2, "no condition", "\x02" + field("root")},
		{V2, "root key longer than all", "\x02\x05root"},
		{V2, "root key length overflows", "\x02" + overflow + "rootcond"},
		{V2, "root key length is no number", "\x02" + tooLong + "rootcond"},
		{V2, "root key length unfinished", "\x02\x80"},
		{V3, "no root key", "\x03" + field("") + field("std:") + "cond"},
		{V3, "no condition", "\x03" + field("root") + field("std:")},
		{V3, "no namespace at all", "\x03" + field("root")},
		{V3, "empty namespace", "\x03" + field("root") + field("") + "cond"},
		{V3, "namespace without std", "\x03" + field("root") + field("https://example.org:x") + "cond"},
		{V3, "namespace with std as prefix", "\x03" + field("root") + field("x:std") + "cond"},
		{V3, "namespace with std twice", "\x03" + field("root") + field("std:a std:b") + "cond"},
		{V3, "namespace with another twice", "\x03" + field("root") + field("std: a:b a:b") + "cond"},
		{V3, "namespace field without colon", "\x03" + field("root") + field("std: x") + "cond"},
		{V3, "namespace field without uri", "\x03" + field("root") + field("std: :x") + "cond"},
		{V3, "namespace not UTF-8", "\x03" + field("root") + field("std: \xff:x") + "cond"},
		{V3, "namespace longer than all", "\x03" + field("root") + "\x09std:cond"},
		{V3, "namespace length overflows", "\x03" + field("root") + overflow + "std:cond"},
		{V1, "nothing", ""},
		{V1, "null", "null"},
		{V1, "array", `["RootKey","Condition"]`},
		{V1, "no root key", `{"RootKey":"","Condition":"cond"}`},
		{V1, "no condition", `{"RootKey":"` + std + `","Condition":""}`},
		{V1, "root key missing", `{"Condition":"cond"}`},
		{V1, "condition missing", `{"RootKey":"` + std + `"}`},
		{V1, "root key null", `{"RootKey":null,"Condition":"cond"}`},
		{V1, "root key a number", `{"RootKey":1,"Condition":"cond"}`},
		{V1, "root key twice", `{"RootKey":"` + std + `","RootKey":"` + std + `","Condition":"cond"}`},
		{V1, "condition twice", `{"RootKey":"` + std + `","Condition":"cond","Condition":"cond"}`},
		{V1, "one more member", `{"RootKey":"` + std + `","Condition":"cond","X":"y"}`},
		{V1, "other case", `{"rootkey":"` + std + `","Condition":"cond"}`},
		{V1, "root key not padded", `{"RootKey":"` + strings.TrimRight(std, "=") + `","Condition":"cond"}`},
		{V1, "root key with line break", `{"RootKey":"` + std[:4] + `\n` + std[4:] + `","Condition":"cond"}`},
		{V1, "condition not UTF-8", `{"RootKey":"` + std + `","Condition":"` + "\xff" + `"}`},
		{V1, "condition half a surrogate", `{"RootKey":"` + std + `","Condition":"\ud800"}`},
		{V1, "condition an object", `{"RootKey":"` + std + `","Condition":{}}`},
		{V1, "trailing data", `{"RootKey":"` + std + `","Condition":"cond"}{}`},
		{V1, "unfinished", `{"RootKey":"` + std + `","Condition":"cond"`},
	} {
		t.Run(fmt.Sprintf("V%d, %s", test.version, test.name), func(t *testing.T) {
			got, err := w.opener.Open(w.sealPlain(test.version, []byte(test.plain)))
			if !errors.Is(err, ErrMalformed) || !got.isZero() {
				t.Errorf("got %v, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "box does not open") {
				t.Errorf("the test itself is wrong: %v", err)
			}
		})
	}
}

// The outer JSON of V1, written with public keys alone.
func TestOpenBadText(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	std := base64.StdEncoding
	good, err := std.DecodeString(string(w.seal(t, V1)))
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	to, from := w.discharger.Public.String(), w.homeserver.Public.String()
	deep := strings.Repeat("[", 2000)
	for name, changed := range map[string]string{
		"no discharger":     strings.Replace(text, `"ThirdPartyPublicKey":"`+to+`",`, "", 1),
		"no homeserver":     strings.Replace(text, `"FirstPartyPublicKey":"`+from+`",`, "", 1),
		"discharger null":   strings.Replace(text, `"`+to+`"`, "null", 1),
		"homeserver null":   strings.Replace(text, `"`+from+`"`, "null", 1),
		"discharger twice":  strings.Replace(text, `{`, `{"ThirdPartyPublicKey":"`+to+`",`, 1),
		"escaped twice":     strings.Replace(text, `{`, `{"\u0054hirdPartyPublicKey":"`+to+`",`, 1),
		"unknown member":    strings.Replace(text, `{`, `{"X":"",`, 1),
		"lower case":        strings.Replace(text, "Nonce", "nonce", 1),
		"nested":            strings.Replace(text, `{`, `{"X":`+deep, 1),
		"unpadded key":      strings.Replace(text, from, strings.TrimRight(from, "="), 1),
		"URL alphabet":      strings.Replace(text, `"Id":"`, `"Id":"-_`, 1),
		"key of 33 bytes":   strings.Replace(text, from, std.EncodeToString(append(w.homeserver.Public[:], 0)), 1),
		"nonce of 25 bytes": strings.Replace(text, `"Nonce":"`, `"Nonce":"AAAA`, 1),
		"empty box":         text[:strings.Index(text, `"Id":"`)] + `"Id":""}`,
		"trailing comma":    strings.Replace(text, `"}`, `",}`, 1),
		"trailing space":    text + " ",
		"trailing data":     text + "null",
		"two objects":       text + text,
		"array":             "[" + text + "]",
	} {
		t.Run(name, func(t *testing.T) {
			if changed == text {
				t.Fatal("not changed")
			}
			id := std.EncodeToString([]byte(changed))
			if name != "array" && id[0] != textMark {
				t.Fatalf("begins with %c", id[0])
			}
			got, err := w.opener.Open([]byte(id))
			if !errors.Is(err, ErrMalformed) || !got.isZero() {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	// White space between members and their order do not matter.
	for name, changed := range map[string]string{
		"as Python writes": strings.NewReplacer(`,"`, `, "`, `":`, `": `).Replace(text),
		"other order": `{"Nonce"` + strings.SplitAfter(strings.Split(text, `"Nonce"`)[1], `",`)[0] +
			strings.Split(text, `"Nonce"`)[0][1:] + `"Id"` + strings.Split(text, `"Id"`)[1],
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := w.opener.Open([]byte(std.EncodeToString([]byte(changed)))); err != nil {
				t.Error(err)
			}
		})
	}
}

// A caveat over the limit is refused although it would open.
func TestOpenTooLarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	overhead := boxAt + box.Overhead
	plain := append([]byte("\x02\x04root"), bytes.Repeat([]byte("c"), MaxBinarySize)...)
	if _, err := w.opener.Open(w.sealPlain(V2, plain[:MaxBinarySize-overhead])); err != nil {
		t.Errorf("V2 of the largest size: %v", err)
	}
	if _, err := w.opener.Open(w.sealPlain(V2, plain[:MaxBinarySize-overhead+1])); !errors.Is(err, ErrMalformed) {
		t.Errorf("V2 one byte over: got %v", err)
	}
	text := func(n int) []byte {
		return w.sealPlain(V1, []byte(`{"RootKey":"AAAA","Condition":"`+strings.Repeat("c", n)+`"}`))
	}
	n := sort.Search(MaxTextSize, func(n int) bool { return len(text(n)) > MaxTextSize })
	if _, err := w.opener.Open(text(n - 1)); err != nil {
		t.Errorf("V1 of the largest size: %v", err)
	}
	if _, err := w.opener.Open(text(n)); !errors.Is(err, ErrMalformed) {
		t.Errorf("V1 over the limit: got %v", err)
	}
}

func TestOpenNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for namespace, want := range map[string]string{
		"std:":                                  "",
		"std:foo":                               "foo",
		" std:foo ":                             "foo",
		"https://example.org/x:ex std:s":        "s",
		"a:b:c std:s":                           "s",
		"https://example.org:8080/: std:\u00e9": "\u00e9",
		"\u2003std:wide\u00a0other:x\n\tthird:y ": "wide",
	} {
		t.Run(strconv.Quote(namespace), func(t *testing.T) {
			plain := append([]byte("\x03\x04root"), byte(len(namespace)))
			plain = append(plain, namespace+"cond"...)
			got, err := w.opener.Open(w.sealPlain(V3, plain))
			if err != nil || got.StdPrefix != want || string(got.Condition) != "cond" {
				t.Errorf("got %q, %v, want %q", got.StdPrefix, err, want)
			}
		})
	}
}

// naiveOpen trusts the public key in a V2 caveat, like decoders without registered
// homeservers.
func naiveOpen(own KeyPair, id []byte) ([]byte, bool) {
	return box.Open(nil, id[boxAt:], (*[nonceSize]byte)(id[nonceAt:boxAt]),
		(*[keySize]byte)(id[keyAt:nonceAt]), (*[keySize]byte)(&own.Private.Key))
}

// With a key of low order, a forger with the discharger's public key alone makes a box
// that opens.
func TestOpenLowOrderForgery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	forger := fixedPair(t, 66)
	plain := []byte("\x02\x04rootforged")
	for _, name := range []string{"0", "1", "order 8", "order 8, the other", "p-1", "0 with top bit"} {
		t.Run(name, func(t *testing.T) {
			low := weakKey(t, weakKeys[name])
			// Any private key agrees with a point of low order on the same secret.
			var nonce [nonceSize]byte
			sealed := box.Seal(nil, plain, &nonce, (*[keySize]byte)(&low), (*[keySize]byte)(&forger.Private.Key))
			id := append([]byte{byte(V2)}, w.discharger.Public[:prefixSize]...)
			id = append(id, low[:]...)
			id = append(id, nonce[:]...)
			id = append(id, sealed...)

			if got, ok := naiveOpen(w.discharger, id); !ok || !bytes.Equal(got, plain) {
				t.Error("the forgery does not even work on a naive opener")
			}
			if got, err := w.opener.Open(id); !errors.Is(err, ErrUnknownHomeserver) || !got.isZero() {
				t.Errorf("got %v, %v", got, err)
			}
			_, err := NewOpener(OpenerConfig{
				Keys:        []KeyPair{w.discharger},
				Homeservers: []Homeserver{{Name: "low", Key: low}},
			})
			if !errors.Is(err, ErrWeakKey) {
				t.Errorf("registered: %v", err)
			}
		})
	}
}

// X25519 ignores the top bit, so that a caveat opens under a key which is not
// the registered one.
func TestOpenTopBit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.seal(t, V2)
	id[nonceAt-1] |= 0x80
	if _, ok := naiveOpen(w.discharger, id); !ok {
		t.Error("the changed caveat does not even open naively")
	}
	if got, err := w.opener.Open(id); !errors.Is(err, ErrUnknownHomeserver) || !got.isZero() {
		t.Errorf("got %v, %v", got, err)
	}
	twin := w.homeserver.Public
	twin[31] |= 0x80
	_, err := NewOpener(OpenerConfig{Keys: []KeyPair{w.discharger}, Homeservers: []Homeserver{{Name: "twin", Key: twin}}})
	if !errors.Is(err, ErrWeakKey) {
		t.Errorf("registered: %v", err)
	}
}

// twinKey adds the point of order 2 to a public key. On the Montgomery curve
// that takes x to 1/x. The result is a canonical key of high order.
func twinKey(key PublicKey) PublicKey {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	little := bytes.Clone(key[:])
	slices.Reverse(little)
	x := new(big.Int).SetBytes(little)
	var twin PublicKey
	x.ModInverse(x, p).FillBytes(twin[:])
	slices.Reverse(twin[:])
	return twin
}

// A homeserver that registers another's key plus a point of low order could pass off
// the other's caveats as its own: they open under both.
func TestOpenTwinKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	twin := twinKey(w.homeserver.Public)
	if err := CheckPublicKey(twin); err != nil || twin == w.homeserver.Public {
		t.Fatalf("twin is no key by itself: %v", err)
	}
	id := w.seal(t, V2)
	copy(id[keyAt:], twin[:])
	if _, ok := naiveOpen(w.discharger, id); !ok {
		t.Error("the changed caveat does not even open naively")
	}
	if got, err := w.opener.Open(id); !errors.Is(err, ErrUnknownHomeserver) || !got.isZero() {
		t.Errorf("got %v, %v", got, err)
	}
	_, err := NewOpener(OpenerConfig{
		Keys: []KeyPair{w.discharger},
		Homeservers: []Homeserver{
			{Name: "honest", Key: w.homeserver.Public},
			{Name: "twin", Key: twin},
		},
	})
	if !errors.Is(err, ErrWeakKey) {
		t.Errorf("registered: %v", err)
	}
}

func TestNewOpenerRefuses(t *testing.T) {
	t.Parallel()
	a, b, hs := fixedPair(t, 1), fixedPair(t, 2), fixedPair(t, 3)
	for name, cfg := range map[string]OpenerConfig{
		"no keys":             {},
		"no private key":      {Keys: []KeyPair{{Public: a.Public}}},
		"no public key":       {Keys: []KeyPair{{Private: a.Private}}},
		"halves of two pairs": {Keys: []KeyPair{{Public: a.Public, Private: b.Private}}},
		"own key twice":       {Keys: []KeyPair{a, b, a}},
		"same homeserver key under one name": {Keys: []KeyPair{a}, Homeservers: []Homeserver{
			{Name: "x", Key: hs.Public}, {Name: "x", Key: hs.Public}}},
		"same homeserver key under two names": {Keys: []KeyPair{a}, Homeservers: []Homeserver{
			{Name: "x", Key: hs.Public}, {Name: "y", Key: hs.Public}}},
		"homeserver without name":      {Keys: []KeyPair{a}, Homeservers: []Homeserver{{Key: hs.Public}}},
		"homeserver without key":       {Keys: []KeyPair{a}, Homeservers: []Homeserver{{Name: "x"}}},
		"homeserver with our key":      {Keys: []KeyPair{a, b}, Homeservers: []Homeserver{{Name: "x", Key: b.Public}}},
		"homeserver with our key twin": {Keys: []KeyPair{a}, Homeservers: []Homeserver{{Name: "x", Key: twinKey(hs.Public)}, {Name: "y", Key: hs.Public}}},
	} {
		t.Run(name, func(t *testing.T) {
			if o, err := NewOpener(cfg); err == nil || o != nil {
				t.Error("no error")
			}
		})
	}
}

// Two own keys with one prefix take 2³² tries to find, so the check is called directly.
func TestOwnKeyPrefix(t *testing.T) {
	t.Parallel()
	o := &Opener{own: []PublicKey{{1, 2, 3, 4, 5}, {1, 2, 3, 5, 5}}}
	for prefix, want := range map[string]int{"\x01\x02\x03\x04": 0, "\x01\x02\x03\x05": 1, "\x01\x02\x03\x06": -1} {
		if got := o.byPrefix([]byte(prefix)); got != want {
			t.Errorf("%x: got %d, want %d", prefix, got, want)
		}
	}
}

func TestOpenConcurrently(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.seal(t, V2)
	done := make(chan error)
	for range 8 {
		go func() {
			for range 200 {
				got, err := w.opener.Open(id)
				if err != nil || string(got.Condition) != testCondition {
					done <- fmt.Errorf("got %v, %w", got, err)
					return
				}
				clear(got.RootKey)
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestOpenAllocations(t *testing.T) {
	w := newWorld(t)
	id := w.seal(t, V2)
	if n := testing.AllocsPerRun(100, func() { w.opener.Open(id) }); n > 1 {
		t.Errorf("opening V2 takes %v allocations, want 1: the decrypted text", n)
	}
	rogue := fixedPair(t, 9)
	stranger := sealRaw(V2, rogue.Public, rogue.Private, w.discharger.Public, []byte("x"))
	if n := testing.AllocsPerRun(100, func() { w.opener.Open(stranger) }); n > 0 {
		t.Errorf("refusing a stranger takes %v allocations, want none", n)
	}
}
