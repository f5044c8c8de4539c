package homeserver

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// testNow is the start of every clock in these tests.
var testNow = time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)

const testLocation = "https://refresh.example.org"

// world is a homeserver, and a discharger that grants every request.
type world struct {
	*Homeserver
	opener *caveat.Opener
	now    time.Time
}

// seeded gives reproducible randomness.
func seeded(seed byte) *rand.ChaCha8 { return rand.NewChaCha8([32]byte{seed}) }

func testKey(t testing.TB, seed byte) Key {
	t.Helper()
	var k Key
	seeded(seed).Read(k.Key[:])
	return k
}

// newWorld makes a world. Edit changes the homeserver's configuration; nil
// leaves it as it is.
func newWorld(t testing.TB, edit func(*Config)) *world {
	t.Helper()
	pair, err := caveat.NewKeyPair(caveat.PrivateKey(testKey(t, 100)))
	if err != nil {
		t.Fatal(err)
	}
	service, err := caveat.NewKeyPair(caveat.PrivateKey(testKey(t, 101)))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{now: testNow}
	w.opener, err = caveat.NewOpener(caveat.OpenerConfig{
		Keys:        []caveat.KeyPair{service},
		Homeservers: []caveat.Homeserver{{Name: "example.org", Key: pair.Public}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Name:       "example.org",
		Keys:       Keys{testKey(t, 2)},
		KeyPair:    pair,
		Discharger: service.Public,
		Location:   testLocation,
	}.WithClock(func() time.Time { return w.now })
	if edit != nil {
		edit(&cfg)
	}
	if w.Homeserver, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return w
}

func alice(mode caveat.Mode) MintParams {
	return MintParams{User: "@alice:example.org", Device: "ABCDEFGHIJ", Mode: mode}
}

func (w *world) mint(t testing.TB, p MintParams) *macaroon.Macaroon {
	t.Helper()
	m, err := w.Mint(p)
	if err != nil {
		t.Fatal(err)
	}
	return m.Macaroon
}

// discharge makes an unbound discharge with the given conditions for the first
// caveat of an access macaroon.
func (w *world) discharge(t testing.TB, access *macaroon.Macaroon, conditions ...string) *macaroon.Macaroon {
	t.Helper()
	id := access.Caveats()[0].Id
	opened, err := w.opener.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	d, err := macaroon.New(opened.RootKey, id, "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	return narrowed(t, d, conditions...)
}

// soon is a discharge's usual expiry.
func soon() string { return rawmacaroon.TimeBefore(testNow.Add(5 * time.Minute)) }

// usual are the conditions that the discharger writes.
func usual(mode caveat.Mode) []string {
	if mode == caveat.ModeRotate {
		return []string{soon(), rawmacaroon.Epoch(3)}
	}
	return []string{soon()}
}

// narrowed gives a copy with conditions added.
func narrowed(t testing.TB, m *macaroon.Macaroon, conditions ...string) *macaroon.Macaroon {
	t.Helper()
	m = m.Clone()
	for _, c := range conditions {
		if err := m.AddFirstPartyCaveat([]byte(c)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// bound gives the discharge bound to the access macaroon.
func bound(access, discharge *macaroon.Macaroon) *macaroon.Macaroon {
	d := discharge.Clone()
	d.Bind(access.Signature())
	return d
}

func encode(t testing.TB, macaroons ...*macaroon.Macaroon) string {
	t.Helper()
	text, err := bundle.Encode(macaroons)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// bundle mints, discharges and binds in the usual way.
func (w *world) bundle(t testing.TB, mode caveat.Mode) string {
	t.Helper()
	access := w.mint(t, alice(mode))
	return encode(t, access, bound(access, w.discharge(t, access, usual(mode)...)))
}

var someClient = Request{ClientIP: netip.MustParseAddr("192.0.2.7")}

// wantKind checks that an error is of one kind and of no other.
func wantKind(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	var e *Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Fatalf("got error %#v, want an *Error of kind %v", err, want)
	}
}

// refused checks that a bundle is refused with an error of the given kind.
func (w *world) refused(t *testing.T, bundle string, r Request, want error) {
	t.Helper()
	id, err := w.Verify(context.Background(), bundle, r)
	wantKind(t, err, want)
	if id != (Identity{}) {
		t.Fatalf("identity %+v beside an error", id)
	}
}

func (w *world) accepted(t *testing.T, bundle string, r Request) Identity {
	t.Helper()
	id, err := w.Verify(context.Background(), bundle, r)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return id
}

// standard gives the standard form of a bundle.
func standard(t testing.TB, encoded string) string {
	t.Helper()
	s, err := bundle.Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	text, err := bundle.EncodeStandard(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func mustDecode(t testing.TB, text string) []byte {
	t.Helper()
	data, err := wire.DecodeBase64(text)
	if err != nil || strings.Contains(text, "=") {
		t.Fatalf("bundle is not base64: %v", err)
	}
	return data
}
