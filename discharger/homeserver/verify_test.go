package homeserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

func TestVerifyTellsWhoItIs(t *testing.T) {
	t.Parallel()
	for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate, caveat.ModeHeld} {
		for _, version := range []caveat.Version{0, caveat.V1, caveat.V2, caveat.V3} {
			w := newWorld(t, nil)
			p := alice(mode)
			p.Version = version
			minted, err := w.Mint(p)
			if err != nil {
				t.Fatal(err)
			}
			access := minted.Macaroon
			text := encode(t, access, bound(access, w.discharge(t, access, usual(mode)...)))
			want := Identity{
				User: "@alice:example.org", Device: "ABCDEFGHIJ", Session: minted.Session, Mode: mode,
				Minted: testNow, Expires: testNow.Add(5 * time.Minute),
			}
			if mode == caveat.ModeRotate {
				want.Epoch = 3
			}
			for _, form := range []string{text, standard(t, text)} {
				for range 2 { // computed, and remembered
					if got := w.accepted(t, form, someClient); got != want {
						t.Errorf("%v, V%d: got %+v, want %+v", mode, version, got, want)
					}
				}
			}
		}
	}
}

func TestCompactBundleIsShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	text := w.bundle(t, caveat.ModeRotate)
	t.Logf("%d characters compact, %d standard", len(text), len(standard(t, text)))
	if len(text) > 800 {
		t.Errorf("a usual bundle takes %d characters, more than 800", len(text))
	}
}

func TestBareAccessMacaroon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	access := w.mint(t, alice(caveat.ModeHeld))
	w.refused(t, encode(t, access), someClient, ErrNotDischarged)
	w.refused(t, encode(t, narrowed(t, access, "client-ip 192.0.2.7")), someClient, ErrNotDischarged)

	other := newWorld(t, func(c *Config) { c.Name = "other.example.org" })
	forged := withID(t, encode(t, access), other.mint(t, alice(caveat.ModeHeld)).Id())
	w.refused(t, forged, someClient, ErrBadSignature)
}

// withID gives a bundle with another identifier on its access macaroon.
func withID(t *testing.T, text string, id []byte) string {
	t.Helper()
	old, err := bundle.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(old[0].Id()) != len(id) {
		t.Fatal("identifiers of different lengths")
	}
	return wire.EncodeBase64(bytes.Replace(mustDecode(t, text), old[0].Id(), id, 1))
}

// No byte can be changed. The locations are the exception: no macaroon signs
// them, and nothing here looks at them.
func TestTampering(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	text := w.bundle(t, caveat.ModeRotate)
	for _, form := range []string{text, standard(t, text)} {
		data := mustDecode(t, form)
		var unsigned []int
		for _, location := range []string{"example.org", testLocation} {
			at := bytes.Index(data, append([]byte{1, byte(len(location))}, location...)) + 2
			for i := range len(location) {
				unsigned = append(unsigned, at+i)
			}
		}
		for i := range data {
			for bit := range 8 {
				changed := bytes.Clone(data)
				changed[i] ^= 1 << bit
				id, err := w.Verify(context.Background(), wire.EncodeBase64(changed), someClient)
				if slices.Contains(unsigned, i) {
					if err != nil || id.User != "@alice:example.org" {
						t.Fatalf("byte %d, part of a location, changes the outcome: %v", i, err)
					}
					continue
				}
				if err == nil {
					t.Fatalf("accepted with bit %d of byte %d flipped", bit, i)
				}
			}
			if _, err := w.Verify(context.Background(), wire.EncodeBase64(data[:i]), someClient); err == nil {
				t.Fatalf("accepted when cut at byte %d", i)
			}
		}
	}
	for _, changed := range []string{"", "A", text + "A", text + "=", text + "\n", text[:9] + "\r\n" + text[9:], " " + text, text[1:]} {
		w.refused(t, changed, someClient, ErrMalformed)
	}
}

func TestDischargesOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	access := w.mint(t, alice(caveat.ModeOpen))
	good := w.discharge(t, access, soon())
	mallory := w.mint(t, MintParams{User: "@mallory:example.org", Device: "ABCDEFGHIJ", Mode: caveat.ModeOpen})
	theirs := w.discharge(t, mallory, soon())
	id := access.Caveats()[0].Id
	otherRoot, err := macaroon.New([]byte("another root key of 24 b"), id, "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	unbound := good.Clone()
	later := narrowed(t, access, "client-ip 192.0.2.7")
	nested := good.Clone()
	if err := nested.AddThirdPartyCaveat([]byte("k"), []byte("more"), "elsewhere"); err != nil {
		t.Fatal(err)
	}
	boundLate := bound(access, good)
	for _, tc := range []struct {
		name      string
		macaroons macaroon.Slice
		want      error
	}{
		{"another session's", macaroon.Slice{access, bound(access, theirs)}, ErrNotDischarged},
		{"another session's, bound to it", macaroon.Slice{access, bound(mallory, theirs)}, ErrNotDischarged},
		{"unbound", macaroon.Slice{access, unbound}, ErrBadSignature},
		{"bound twice", macaroon.Slice{access, bound(access, bound(access, good))}, ErrBadSignature},
		{"bound to another access macaroon", macaroon.Slice{access, bound(mallory, good)}, ErrBadSignature},
		{"made with another root key", macaroon.Slice{access, bound(access, narrowed(t, otherRoot, soon()))}, ErrBadSignature},
		{"access macaroon narrowed after binding", macaroon.Slice{later, boundLate}, ErrBadSignature},
		{"discharge narrowed after binding", macaroon.Slice{access, narrowed(t, boundLate, "client-ip 192.0.2.7")}, ErrBadSignature},
		{"one too many", macaroon.Slice{access, bound(access, good), bound(access, theirs)}, ErrMalformed},
		{"the same twice", macaroon.Slice{access, bound(access, good), bound(access, good)}, ErrMalformed},
		{"a discharge alone", macaroon.Slice{bound(access, good)}, ErrMalformed},
		{"the other way round", macaroon.Slice{bound(access, good), access}, ErrMalformed},
		{"a discharge that needs a discharge", macaroon.Slice{access, bound(access, nested)}, ErrUnknownCaveat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w.refused(t, encode(t, tc.macaroons...), someClient, tc.want)
		})
	}
}

// A discharge in the compact form takes its identifier from the access
// macaroon. That is of no use.
func TestCompactFormOfAnotherDischarge(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	access, other := w.mint(t, alice(caveat.ModeOpen)), w.mint(t, alice(caveat.ModeOpen))
	d := bound(access, w.discharge(t, other, soon()))
	data, err := macaroon.Slice{access, d}.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	id := d.Id()
	field := append([]byte{2, byte(len(id)) | 0x80, byte(len(id) >> 7)}, id...)
	if !bytes.Contains(data, field) {
		t.Fatal("identifier of the discharge not found")
	}
	compact := append([]byte{1}, bytes.Replace(data, field, []byte{2, 0}, 1)...)
	w.refused(t, wire.EncodeBase64(compact), someClient, ErrBadSignature)
}

func TestAccessMacaroonsOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	other := newWorld(t, func(c *Config) { c.Keys = Keys{testKey(t, 3)} })
	w.refused(t, other.bundle(t, caveat.ModeOpen), someClient, ErrUnknownKey)

	// The same key id under another key needs the id changed by force.
	text := other.bundle(t, caveat.ModeOpen)
	b, err := bundle.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	id := bytes.Clone(b.Access.ID)
	mine := w.cfg.Keys[0].ID()
	copy(id[keyIDAt:], mine[:])
	w.refused(t, withID(t, text, id), someClient, ErrBadSignature)

	foreign, err := macaroon.New([]byte("root"), []byte("unknown"), "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	w.refused(t, encode(t, foreign), someClient, ErrMalformed)
}

// A holder's third-party caveat before ours cannot be: ours was first when the
// macaroon left. One after it is refused, discharged or not.
func TestThirdPartyCaveatsAddedByHolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	access := w.mint(t, alice(caveat.ModeOpen))
	d := w.discharge(t, access, soon())
	if err := access.AddThirdPartyCaveat([]byte("known to the holder"), []byte("mine"), testLocation); err != nil {
		t.Fatal(err)
	}
	mine, err := macaroon.New([]byte("known to the holder"), []byte("mine"), "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	w.refused(t, encode(t, access, bound(access, d)), someClient, ErrUnknownCaveat)
	w.refused(t, encode(t, access, bound(access, d), bound(access, mine)), someClient, ErrUnknownCaveat)
}

func TestFirstCaveatHasToBeOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	m, err := w.access(&w.ring.Load().mint, caveat.Condition{Session: caveat.SessionID{1}, User: "u", Mode: caveat.ModeOpen, Minted: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.refused(t, encode(t, m), someClient, ErrMalformed)
	w.refused(t, encode(t, narrowed(t, m, soon())), someClient, ErrMalformed)
}

func TestConditions(t *testing.T) {
	t.Parallel()
	past, future := rawmacaroon.TimeBefore(testNow.Add(-time.Second)), rawmacaroon.TimeBefore(testNow.Add(time.Hour))
	v4, v6 := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	mapped, zoned := netip.MustParseAddr("::ffff:192.0.2.7"), netip.MustParseAddr("fe80::1%eth0")
	rotate, open := caveat.ModeRotate, caveat.ModeOpen
	for _, tc := range []struct {
		name      string
		mode      caveat.Mode
		access    []string
		discharge []string
		client    netip.Addr
		want      error // nil: accepted
	}{
		{"usual, open", open, nil, []string{soon()}, v4, nil},
		{"usual, rotate", rotate, nil, []string{soon(), "declared epoch 0"}, v4, nil},
		{"no condition at all", open, nil, nil, v4, ErrMalformed},
		{"no expiry", open, nil, []string{"client-ip 192.0.2.7"}, v4, ErrMalformed},
		{"expiry not first", open, nil, []string{"client-ip 192.0.2.7", soon()}, v4, ErrMalformed},
		{"expiry only on the access macaroon", open, []string{future}, nil, v4, ErrMalformed},
		{"expired", open, nil, []string{past}, v4, ErrExpired},
		{"expired this moment", open, nil, []string{rawmacaroon.TimeBefore(testNow)}, v4, ErrExpired},
		{"expires in the next", open, nil, []string{rawmacaroon.TimeBefore(testNow.Add(1))}, v4, nil},
		{"shortened by its holder", open, nil, []string{soon(), past}, v4, ErrExpired},
		{"lengthened by its holder", open, nil, []string{past, future}, v4, ErrExpired},
		{"access macaroon shortened", open, []string{past}, []string{soon()}, v4, ErrExpired},
		{"access macaroon lengthened", open, []string{future}, []string{past}, v4, ErrExpired},
		{"another spelling of the zone", open, nil, []string{"time-before 2026-11-24T12:00:00+01:00"}, v4, nil},
		{"time that is none", open, nil, []string{"time-before tomorrow"}, v4, ErrMalformed},
		{"added time that is none", open, []string{"time-before tomorrow"}, []string{soon()}, v4, ErrUnknownCaveat},
		{"access macaroon ended in the year 1", open, []string{"time-before 0001-01-01T00:00:00Z"}, []string{soon()}, v4, ErrExpired},
		{"access macaroon ended in the year 1, then lengthened", open, []string{"time-before 0001-01-01T01:00:00+01:00", future}, []string{soon()}, v4, ErrExpired},
		{"discharge of the year 1", open, nil, []string{"time-before 0001-01-01T00:00:00Z"}, v4, ErrExpired},
		{"discharge shortened to the year 1", open, nil, []string{soon(), "time-before 0001-01-01T00:00:00Z"}, v4, ErrExpired},
		{"time missing", open, []string{"time-before"}, []string{soon()}, v4, ErrUnknownCaveat},

		{"epoch missing", rotate, nil, []string{soon()}, v4, ErrMalformed},
		{"epoch not second", rotate, nil, []string{soon(), "client-ip 192.0.2.7", "declared epoch 3"}, v4, ErrMalformed},
		{"epoch raised by holder", rotate, nil, []string{soon(), "declared epoch 3", "declared epoch 99"}, v4, ErrUnknownCaveat},
		{"epoch repeated", rotate, nil, []string{soon(), "declared epoch 3", "declared epoch 3"}, v4, ErrUnknownCaveat},
		{"epoch on the access macaroon", rotate, []string{"declared epoch 99"}, []string{soon(), "declared epoch 3"}, v4, ErrUnknownCaveat},
		{"epoch made up in mode open", open, nil, []string{soon(), "declared epoch 99"}, v4, ErrUnknownCaveat},
		{"epoch of no number", rotate, nil, []string{soon(), "declared epoch x"}, v4, ErrMalformed},
		{"epoch signed", rotate, nil, []string{soon(), "declared epoch +3"}, v4, ErrMalformed},
		{"epoch with a zero before it", rotate, nil, []string{soon(), "declared epoch 03"}, v4, ErrMalformed},
		{"epoch too large", rotate, nil, []string{soon(), "declared epoch 18446744073709551616"}, v4, ErrMalformed},
		{"epoch at its largest", rotate, nil, []string{soon(), "declared epoch 18446744073709551615"}, v4, nil},
		{"another fact in its place", rotate, nil, []string{soon(), "declared user @root:example.org"}, v4, ErrMalformed},
		{"user declared by holder", open, nil, []string{soon(), "declared user @root:example.org"}, v4, ErrUnknownCaveat},
		{"user declared on the access macaroon", open, []string{"declared user @root:example.org"}, []string{soon()}, v4, ErrUnknownCaveat},

		{"address", open, []string{"client-ip 192.0.2.7"}, []string{soon()}, v4, nil},
		{"address of another", open, []string{"client-ip 192.0.2.8"}, []string{soon()}, v4, ErrNotMet},
		{"address on the discharge", open, nil, []string{soon(), "client-ip 192.0.2.8"}, v4, ErrNotMet},
		{"address after the epoch", rotate, nil, []string{soon(), "declared epoch 1", "client-ip 192.0.2.7"}, v4, nil},
		{"address, client mapped", open, []string{"client-ip 192.0.2.7"}, []string{soon()}, mapped, nil},
		{"address mapped", open, []string{"client-ip ::ffff:192.0.2.7"}, []string{soon()}, v4, nil},
		{"address in IPv6", open, []string{"client-ip 2001:DB8:0::7"}, []string{soon()}, v6, nil},
		{"address in IPv6, client in IPv4", open, []string{"client-ip 2001:db8::7"}, []string{soon()}, v4, ErrNotMet},
		{"range", open, []string{"client-ip 192.0.2.0/24"}, []string{soon()}, v4, nil},
		{"range of others", open, []string{"client-ip 198.51.100.0/24"}, []string{soon()}, v4, ErrNotMet},
		{"range, client mapped", open, []string{"client-ip 192.0.2.0/24"}, []string{soon()}, mapped, nil},
		{"range mapped", open, []string{"client-ip ::ffff:192.0.2.0/120"}, []string{soon()}, v4, nil},
		{"range with bits beside the mask", open, []string{"client-ip 192.0.2.99/24"}, []string{soon()}, v4, nil},
		{"range of all IPv4, client in IPv6", open, []string{"client-ip 0.0.0.0/0"}, []string{soon()}, v6, ErrNotMet},
		{"range of all IPv6, client in IPv4", open, []string{"client-ip ::/0"}, []string{soon()}, v4, ErrNotMet},
		{"range of IPv4 and more", open, []string{"client-ip ::ffff:0.0.0.0/90"}, []string{soon()}, v4, ErrUnknownCaveat},
		{"narrower and narrower", open, []string{"client-ip 192.0.2.0/24", "client-ip 192.0.2.7"}, []string{soon()}, v4, nil},
		{"widened", open, []string{"client-ip 192.0.2.8", "client-ip 0.0.0.0/0"}, []string{soon()}, v4, ErrNotMet},
		{"address unknown", open, []string{"client-ip 0.0.0.0/0"}, []string{soon()}, netip.Addr{}, ErrNotMet},
		{"address with zone", open, []string{"client-ip fe80::1"}, []string{soon()}, zoned, nil},
		{"zone in the condition", open, []string{"client-ip fe80::1%eth0"}, []string{soon()}, zoned, ErrUnknownCaveat},
		{"address that is none", open, []string{"client-ip localhost"}, []string{soon()}, v4, ErrUnknownCaveat},
		{"address missing", open, []string{"client-ip"}, []string{soon()}, v4, ErrUnknownCaveat},
		{"two spaces", open, []string{"client-ip  192.0.2.7"}, []string{soon()}, v4, ErrUnknownCaveat},

		{"unknown", open, []string{"moon-phase full"}, []string{soon()}, v4, ErrUnknownCaveat},
		{"unknown on the discharge", open, nil, []string{soon(), "moon-phase full"}, v4, ErrUnknownCaveat},
		{"empty", open, []string{""}, []string{soon()}, v4, ErrUnknownCaveat},
		{"a space first", open, []string{" client-ip 192.0.2.7"}, []string{soon()}, v4, ErrUnknownCaveat},
		{"another case", open, []string{"Client-IP 192.0.2.7"}, []string{soon()}, v4, ErrUnknownCaveat},
		{"with a prefix", open, []string{"std:time-before 2027-01-01T00:00:00Z"}, []string{soon()}, v4, ErrUnknownCaveat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			access := w.mint(t, alice(tc.mode))
			d := w.discharge(t, access, tc.discharge...)
			access = narrowed(t, access, tc.access...)
			text, r := encode(t, access, bound(access, d)), Request{ClientIP: tc.client}
			for range 2 {
				if tc.want == nil {
					w.accepted(t, text, r)
					continue
				}
				w.refused(t, text, r, tc.want)
			}
		})
	}
}

func TestExpiryIsTheEarliest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for _, tc := range []struct{ access, discharge []int }{
		{nil, []int{5}}, {nil, []int{5, 3, 4}}, {nil, []int{3, 5}}, {[]int{2, 9}, []int{5}}, {[]int{9}, []int{5, 4}},
	} {
		t.Run(fmt.Sprintf("access %v, discharge %v", tc.access, tc.discharge), func(t *testing.T) {
			access, earliest := w.mint(t, alice(caveat.ModeOpen)), 99
			conditions := func(minutes []int) (out []string) {
				for _, m := range minutes {
					earliest = min(earliest, m)
					out = append(out, rawmacaroon.TimeBefore(testNow.Add(time.Duration(m)*time.Minute)))
				}
				return out
			}
			d := w.discharge(t, access, conditions(tc.discharge)...)
			access = narrowed(t, access, conditions(tc.access)...)
			got := w.accepted(t, encode(t, access, bound(access, d)), someClient)
			if want := testNow.Add(time.Duration(earliest) * time.Minute); !got.Expires.Equal(want) {
				t.Errorf("expires %v, want %v", got.Expires, want)
			}
		})
	}
}

func TestExpiryTellsWhich(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	access := w.mint(t, alice(caveat.ModeOpen))
	d := w.discharge(t, access, soon())
	access = narrowed(t, access, rawmacaroon.TimeBefore(testNow.Add(time.Hour)))
	text := encode(t, access, bound(access, d))
	for _, tc := range []struct {
		after time.Duration
		part  Part
		at    time.Duration
	}{{5 * time.Minute, PartDischarge, 5 * time.Minute}, {time.Hour, PartAccess, time.Hour}} {
		w.now = testNow.Add(tc.after)
		_, err := w.Verify(context.Background(), text, someClient)
		var e *Error
		if !errors.As(err, &e) || e.Kind != ErrExpired || e.Part != tc.part || !e.At.Equal(testNow.Add(tc.at)) {
			t.Errorf("after %v: %v", tc.after, err)
		}
	}
}

func TestLeeway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Leeway = 2 * time.Second })
	text := w.bundle(t, caveat.ModeOpen)
	w.now = testNow.Add(5*time.Minute + 2*time.Second - 1)
	w.accepted(t, text, someClient)
	w.now = testNow.Add(5*time.Minute + 2*time.Second)
	w.refused(t, text, someClient, ErrExpired)
}

func TestCheckDecidesAboutTheRest(t *testing.T) {
	t.Parallel()
	type key struct{}
	errNo := errors.New("no such room")
	var asked []string
	w := newWorld(t, func(c *Config) {
		c.Check = func(ctx context.Context, c Caveat) error {
			asked = append(asked, c.Condition)
			if ctx.Value(key{}) != "request" || c.Request != someClient {
				return errors.New("not the request, or not its context")
			}
			if c.Identity.User != "@alice:example.org" || c.Part != PartAccess && c.Part != PartDischarge {
				return errors.New("not the bundle's identity")
			}
			switch c.Condition {
			case "room !a:example.org":
				return nil
			case "room !b:example.org":
				return errNo
			}
			return ErrUnknownCaveat
		}
	})
	ctx := context.WithValue(context.Background(), key{}, "request")
	verify := func(conditions ...string) error {
		access := w.mint(t, alice(caveat.ModeOpen))
		d := w.discharge(t, access, append([]string{soon()}, conditions...)...)
		_, err := w.Verify(ctx, encode(t, access, bound(access, d)), someClient)
		return err
	}
	if err := verify("room !a:example.org", "client-ip 192.0.2.7"); err != nil {
		t.Errorf("refused: %v", err)
	}
	if want := []string{"room !a:example.org"}; !slices.Equal(asked, want) {
		t.Errorf("checked %q, want %q", asked, want)
	}
	err := verify("room !a:example.org", "room !b:example.org")
	wantKind(t, err, ErrNotMet)
	if !errors.Is(err, errNo) {
		t.Errorf("error %v hides Check's", err)
	}
	wantKind(t, verify("moon-phase full"), ErrUnknownCaveat)
	asked = nil
	wantKind(t, verify("declared role admin"), ErrUnknownCaveat)
	if len(asked) > 0 {
		t.Errorf("checked a declared fact: %q", asked)
	}
}

func TestKeyRing(t *testing.T) {
	t.Parallel()
	older, newer := testKey(t, 2), testKey(t, 3)
	before := newWorld(t, func(c *Config) { c.Keys = Keys{older} })
	between := newWorld(t, func(c *Config) { c.Keys = Keys{newer, older} })
	after := newWorld(t, func(c *Config) { c.Keys = Keys{newer} })
	old, young := before.bundle(t, caveat.ModeRotate), between.bundle(t, caveat.ModeRotate)
	between.accepted(t, old, someClient)
	between.accepted(t, young, someClient)
	after.accepted(t, young, someClient)
	after.refused(t, old, someClient, ErrUnknownKey)
	before.refused(t, young, someClient, ErrUnknownKey)
	for _, text := range []string{old, young} {
		retired := newWorld(t, func(c *Config) { c.Keys, c.Retired = Keys{testKey(t, 4)}, [][4]byte{older.ID(), newer.ID()} })
		retired.refused(t, text, someClient, ErrRetiredKey)
	}
	if _, err := New(Config{
		Keys: Keys{older}, Retired: [][4]byte{older.ID()}, KeyPair: before.cfg.KeyPair, Discharger: before.cfg.Discharger, Location: before.cfg.Location,
	}); err == nil {
		t.Error("a key is in use and retired")
	}
}

// The macaroon library alone reads the standard form and agrees.
func TestStandardFormIsMacaroons(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	var s macaroon.Slice
	if err := s.UnmarshalBinary(mustDecode(t, standard(t, w.bundle(t, caveat.ModeRotate)))); err != nil {
		t.Fatal(err)
	}
	root := w.cfg.Keys[0].rootKey(s[0].Id())
	got, err := s[0].VerifySignature(root[:], s[1:])
	if err != nil {
		t.Fatal(err)
	}
	if want := usual(caveat.ModeRotate); !slices.Equal(got, want) {
		t.Errorf("conditions %q, want %q", got, want)
	}
}

// Two kinds of errors say nothing about the session.
func TestUndecided(t *testing.T) {
	t.Parallel()
	for _, kind := range []error{
		ErrMalformed, ErrUnknownKey, ErrRetiredKey, ErrBadSignature, ErrNotDischarged, ErrExpired, ErrNotMet, ErrUnknownCaveat, ErrRevoked, ErrUndecided,
	} {
		if got, want := (&Error{Kind: kind}).Undecided(), kind == ErrUnknownKey || kind == ErrUndecided; got != want {
			t.Errorf("%v: %t", kind, got)
		}
	}
}
