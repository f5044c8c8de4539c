package caveat

import (
	"reflect"
	"testing"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
)

// Opening never panics, does not change the id, and returns the zero value with an
// error.
func FuzzOpen(f *testing.F) {
	w := newWorld(f)
	for _, version := range versions {
		id := w.seal(f, version)
		f.Add(id)
		f.Add(id[:len(id)-1])
	}
	f.Add([]byte("eyJ4IjoxfQ=="))
	f.Add([]byte("\x03\x00"))
	f.Fuzz(func(t *testing.T, id []byte) {
		kept := string(id)
		got, err := w.opener.Open(id)
		if string(id) != kept {
			t.Error("id changed")
		}
		checkOpened(t, got, err)
	})
}

// Neither does opening any content of a box, which the fuzzer cannot seal by chance.
func FuzzOpenSealed(f *testing.F) {
	w := newWorld(f)
	f.Add(uint8(V1), []byte(`{"RootKey":"cm9vdA==","Condition":"cond"}`))
	f.Add(uint8(V2), []byte("\x02\x04rootcond"))
	f.Add(uint8(V3), []byte("\x03\x04root\x04std:cond"))
	f.Add(uint8(V3), []byte("\x03\x04root\x0bstd:foo x:ycond"))
	f.Add(uint8(V2), []byte("\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01rootcond"))
	f.Fuzz(func(t *testing.T, version uint8, plain []byte) {
		got, err := w.opener.Open(w.sealPlain(V1+Version(version%3), plain))
		checkOpened(t, got, err)
	})
}

func checkOpened(t *testing.T, got Opened, err error) {
	t.Helper()
	if err != nil {
		if !got.isZero() {
			t.Errorf("error %v with %v", err, got)
		}
		return
	}
	if len(got.RootKey) == 0 || len(got.Condition) == 0 || got.Homeserver == "" {
		t.Errorf("opened without a part: %v", got)
	}
}

// The prefix is the one that the bakery finds, and there is an error exactly
// where the bakery has one or finds none.
func FuzzNamespace(f *testing.F) {
	for _, text := range []string{"", "std:", "std:foo", "a:b:c std:s", " std:x\u00a0y:z", "std:\xff", "std: std:", "std", ":x std:"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := stdPrefix(text)
		var theirs checkers.Namespace
		unmarshal := theirs.UnmarshalText(text)
		want, ok := theirs.Resolve(checkers.StdNamespace)
		if ok = ok && unmarshal == nil; !ok {
			want = ""
		}
		if got != want || (err == nil) != ok {
			t.Errorf("%q: got %q, %v; the bakery %q, %v, %v", text, got, err, want, ok, unmarshal)
		}
	})
}

// Both parsers return the same condition.
func FuzzReadPlain(f *testing.F) {
	for _, c := range []Condition{
		fullCondition(f),
		{Session: testSession(f), User: "u", Mode: ModeOpen},
		{Session: testSession(f), User: "@a<b>:example.org", Device: "d", Minted: 1_790_000_000_000, Mode: ModeRotate, Policy: "strict"},
	} {
		text, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(text[len(conditionWord):]))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		short, ok := readPlain(text)
		if !ok {
			return
		}
		var long Condition
		if err := long.read(text); err != nil || !reflect.DeepEqual(short, long) {
			t.Errorf("%q: the short way %+v, the long way %+v, %v", text, short, long, err)
		}
	})
}

// A parsed condition encodes and parses to the same condition; an error comes with the
// zero value.
func FuzzParseCondition(f *testing.F) {
	for _, c := range []Condition{fullCondition(f), {Session: testSession(f), User: "u", Mode: ModeOpen}} {
		text, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(text))
		f.Add([]byte(text[:len(text)-1]))
	}
	f.Add([]byte(conditionOf(members)))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseCondition(text)
		if err != nil {
			if !reflect.DeepEqual(c, Condition{}) {
				t.Errorf("error %v with %+v", err, c)
			}
			return
		}
		code, err := c.Encode()
		if err != nil {
			t.Fatalf("%q parses but does not encode: %v", text, err)
		}
		again, err := ParseCondition([]byte(code))
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s: parses to %+v, %v, not to %+v", code, again, err, c)
		}
		if code2, err := again.Encode(); err != nil || code2 != code {
			t.Errorf("two codes of one condition: %s and %s, %v", code, code2, err)
		}
	})
}

// A parsed key prints as the standard text, which parses to the same key.
func FuzzParsePublicKey(f *testing.F) {
	key := fixedPair(f, 1).Public
	f.Add(key.String())
	f.Add(key.String()[:43])
	f.Add("__________________________________________8")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := ParsePublicKey(text)
		if err != nil {
			if key != (PublicKey{}) {
				t.Errorf("error %v with %s", err, key)
			}
			return
		}
		if again, err := ParsePublicKey(key.String()); err != nil || again != key {
			t.Errorf("%q: parses to %s, %v, not to %s", text, again, err, key)
		}
	})
}

// A session id has one spelling.
func FuzzParseSessionID(f *testing.F) {
	f.Add("AAECAwQFBgcICQoLDA0ODw")
	f.Add("AAECAwQFBgcICQoLDA0ODx")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseSessionID(text)
		if err != nil && id != (SessionID{}) || err == nil && id.String() != text {
			t.Errorf("%q: got %s, %v", text, id, err)
		}
	})
}
