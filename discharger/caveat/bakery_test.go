package caveat

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"gopkg.in/macaroon.v2"
)

func bakeryPair(pair KeyPair) *bakery.KeyPair {
	return &bakery.KeyPair{
		Public:  bakery.PublicKey{Key: bakery.Key(pair.Public)},
		Private: bakery.PrivateKey{Key: bakery.Key(pair.Private.Key)},
	}
}

const location = "https://discharger.example"

// bakeryMacaroon is an access macaroon as a homeserver mints it that uses the
// bakery.
func bakeryMacaroon(tb testing.TB, w world, version bakery.Version, ns *checkers.Namespace, condition string) *bakery.Macaroon {
	tb.Helper()
	m, err := bakery.NewMacaroon([]byte("the homeserver's root key"), []byte("id"), "", version, ns)
	if err != nil {
		tb.Fatal(err)
	}
	store := bakery.NewThirdPartyStore()
	store.AddInfo(location, bakery.ThirdPartyInfo{PublicKey: bakeryPair(w.discharger).Public, Version: version})
	cav := checkers.Caveat{Location: location, Condition: condition}
	if err := m.AddCaveat(context.Background(), cav, bakeryPair(w.homeserver), store); err != nil {
		tb.Fatal(err)
	}
	return m
}

// The bakery seals; this package opens, and the discharge is made from the content;
// the bakery's client binds it, and the bundle verifies.
func TestBakerySeals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	custom := checkers.NewNamespace(map[string]string{"std": "foo", "https://example.org/schema": "ex"})
	for name, test := range map[string]struct {
		version bakery.Version
		ns      *checkers.Namespace
		want    Version
		prefix  string
	}{
		"V0":               {bakery.Version0, nil, V1, ""},
		"V1":               {bakery.Version1, nil, V1, ""},
		"V2":               {bakery.Version2, nil, V2, ""},
		"V3":               {bakery.Version3, checkers.New(nil).Namespace(), V3, ""},
		"V3 with a prefix": {bakery.Version3, custom, V3, "foo"},
	} {
		t.Run(name, func(t *testing.T) {
			// The bakery escapes < > & in JSON, and the é is two bytes.
			condition := strings.Replace(testCondition, "ABCDEFGHIJ", "a<b>&é", 1)
			m := bakeryMacaroon(t, w, test.version, test.ns, condition)
			discharge := func(_ context.Context, cav macaroon.Caveat, payload []byte) (*bakery.Macaroon, error) {
				if payload == nil {
					payload = cav.Id
				}
				opened, err := w.opener.Open(payload)
				if err != nil {
					return nil, err
				}
				if opened.Version != test.want || opened.StdPrefix != test.prefix || string(opened.Condition) != condition ||
					opened.HomeserverKey != w.homeserver.Public || len(opened.RootKey) != 24 {
					t.Errorf("opened %v", opened)
				}
				d, err := macaroon.New(opened.RootKey, cav.Id, "", bakery.MacaroonVersion(test.version))
				if err != nil {
					return nil, err
				}
				first := checkers.ConditionWithPrefix(opened.StdPrefix, "time-before 2030-01-01T00:00:00Z")
				if err := d.AddFirstPartyCaveat([]byte(first)); err != nil {
					return nil, err
				}
				return bakery.NewLegacyMacaroon(d)
			}
			bundle, err := bakery.DischargeAll(context.Background(), m, discharge)
			if err != nil {
				t.Fatal(err)
			}
			var conditions []string
			check := func(condition string) error { conditions = append(conditions, condition); return nil }
			if err := bundle[0].Verify([]byte("the homeserver's root key"), check, bundle[1:]); err != nil {
				t.Error(err)
			}
			want := checkers.ConditionWithPrefix(test.prefix, "time-before 2030-01-01T00:00:00Z")
			if len(conditions) != 1 || conditions[0] != want {
				t.Errorf("verified conditions %q, want %q", conditions, want)
			}
		})
	}
}

// The bakery always puts a namespace into V3, an empty one too.
func TestBakerySealsWithoutStd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := bakeryMacaroon(t, w, bakery.Version3, checkers.NewNamespace(nil), testCondition)
	_, err := bakery.DischargeAll(context.Background(), m, func(_ context.Context, _ macaroon.Caveat, payload []byte) (*bakery.Macaroon, error) {
		_, err := w.opener.Open(payload)
		return nil, err
	})
	if err == nil || !strings.Contains(err.Error(), "namespace lacks std") {
		t.Errorf("got %v", err)
	}
}

// This package seals; the bakery's discharger opens, V3 with the caveat id alone.
func TestBakeryOpens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, version := range versions {
		id := w.seal(t, version)
		var info *bakery.ThirdPartyCaveatInfo
		checker := func(_ context.Context, got *bakery.ThirdPartyCaveatInfo) ([]checkers.Caveat, error) {
			info = got
			return []checkers.Caveat{checkers.DeclaredCaveat("k", "v")}, nil
		}
		m, err := bakery.Discharge(context.Background(), bakery.DischargeParams{
			Id: id, Key: bakeryPair(w.discharger), Checker: bakery.ThirdPartyCaveatCheckerFunc(checker),
		})
		if err != nil {
			t.Errorf("V%d: %v", version, err)
			continue
		}
		prefix, ok := info.Namespace.Resolve(checkers.StdNamespace)
		if string(info.Condition) != testCondition || !bytes.Equal(info.RootKey, testRootKey) || prefix != "" || !ok ||
			info.Version != bakery.Version(version) || PublicKey(info.FirstPartyPublicKey.Key) != w.homeserver.Public {
			t.Errorf("V%d: got %+v", version, info)
		}
		if _, err := m.M().VerifySignature(testRootKey, nil); err != nil {
			t.Errorf("V%d: discharge: %v", version, err)
		}
	}
}

// The forgery with an all-zero key works on the bakery's discharger: the look-up of
// the homeserver prevents it.
func TestBakeryTakesForgery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	forger := fixedPair(t, 66)
	var zero PublicKey
	shared := agree(forger.Private, zero)
	sealer := &Sealer{version: V2, homeserver: zero, discharger: w.discharger.Public, shared: shared}
	id, err := sealer.Seal([]byte("forged"), testCondition)
	if err != nil {
		t.Fatal(err)
	}
	called := false
	checker := func(context.Context, *bakery.ThirdPartyCaveatInfo) ([]checkers.Caveat, error) {
		called = true
		return nil, nil
	}
	_, err = bakery.Discharge(context.Background(), bakery.DischargeParams{
		Id: id, Key: bakeryPair(w.discharger), Checker: bakery.ThirdPartyCaveatCheckerFunc(checker),
	})
	if err != nil || !called {
		t.Errorf("the bakery refuses the forgery: %v", err)
	}
	if got, err := w.opener.Open(id); !errors.Is(err, ErrUnknownHomeserver) || !got.isZero() {
		t.Errorf("got %v, %v", got, err)
	}
}

// Caveats sealed by Python's macaroonbakery 1.3.1, whose JSON has white space
// and escapes all but ASCII.
func TestPythonSeals(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/python-macaroonbakery.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Homeserver string `json:"homeserver_private"`
		Discharger string `json:"discharger_private"`
		RootKey    []byte `json:"root_key"`
		Caveats    []struct {
			Version   Version
			StdPrefix string `json:"std_prefix"`
			Condition string
			ID        []byte
		}
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	homeserver, discharger := pairOf(t, vectors.Homeserver), pairOf(t, vectors.Discharger)
	o := mustOpener(t, OpenerConfig{
		Keys:        []KeyPair{discharger},
		Homeservers: []Homeserver{{Name: "python", Key: homeserver.Public}},
	})
	if len(vectors.Caveats) != 4 {
		t.Fatalf("%d caveats in the file, want 4", len(vectors.Caveats))
	}
	for _, cav := range vectors.Caveats {
		got, err := o.Open(cav.ID)
		if err != nil || got.Version != cav.Version || got.StdPrefix != cav.StdPrefix ||
			!bytes.Equal(got.RootKey, vectors.RootKey) || string(got.Condition) != cav.Condition {
			t.Errorf("V%d: got %v, %v", cav.Version, got, err)
		}
		c, err := ParseCondition(got.Condition)
		if err != nil || c.User != "@zoë:example.org" || c.Device != "ABC<>&" || c.Mode != ModeRotate {
			t.Errorf("V%d: condition %+v, %v", cav.Version, c, err)
		}
	}
}

func pairOf(t *testing.T, private string) KeyPair {
	t.Helper()
	key, err := ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := NewKeyPair(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// The text of a key reads the same in the bakery.
func TestBakeryKeyText(t *testing.T) {
	t.Parallel()
	want := fixedPair(t, 3).Public
	for _, text := range []string{want.String(), base64.RawURLEncoding.EncodeToString(want[:])} {
		var theirs bakery.PublicKey
		if err := theirs.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		ours, err := ParsePublicKey(theirs.String())
		if err != nil || ours != want || PublicKey(theirs.Key) != want {
			t.Errorf("%s: got %s, %v", text, ours, err)
		}
	}
}
