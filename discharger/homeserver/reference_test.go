package homeserver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// reference is Verify once more, on the macaroon library and with none of the
// code under test: Verify has to accept the same bundles, and no others. It has no
// Check.
func (w *world) reference(text string, r Request) (Identity, error) {
	if len(text) > 16384 || !regexp.MustCompile(`^[A-Za-z0-9_-]*$`).MatchString(text) {
		return Identity{}, errors.New("not base64url")
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || base64.RawURLEncoding.EncodeToString(data) != text {
		return Identity{}, errors.New("not base64url")
	}
	s, err := referenceDecode(data)
	if err != nil {
		return Identity{}, err
	}
	id, root, err := w.referenceIdentifier(s[0].Id())
	if err != nil {
		return Identity{}, err
	}
	if _, err := s[0].VerifySignature(root, s[1:]); err != nil {
		return Identity{}, err
	}
	return id, referenceRules(&id, s, r, w.now)
}

// referenceDecode reads both forms. canonical reports whether the library writes the same.
func referenceDecode(data []byte) (macaroon.Slice, error) {
	compact := len(data) > 0 && data[0] == 1
	if compact {
		data = data[1:]
	}
	var s macaroon.Slice
	if err := s.UnmarshalBinary(data); err != nil {
		return nil, err
	}
	again, err := s.MarshalBinary()
	if err != nil || !bytes.Equal(again, data) || len(s) == 0 || len(s) > 16 {
		return nil, errors.New("not canonical, or of a wrong size")
	}
	caveats := 0
	for _, m := range s {
		caveats += len(m.Caveats())
		if m.Version() != macaroon.V2 {
			return nil, errors.New("not V2")
		}
	}
	if caveats > 64 {
		return nil, errors.New("too many caveats")
	}
	if !compact {
		return s, nil
	}
	next := 1
	for _, c := range s[0].Caveats() {
		if len(c.VerificationId) == 0 {
			continue
		}
		if next >= len(s) || len(s[next].Id()) > 0 {
			return nil, errors.New("compact form with a wrong discharge")
		}
		if s[next], err = identified(s[next], c.Id); err != nil {
			return nil, err
		}
		next++
	}
	if next == 1 || next != len(s) {
		return nil, errors.New("compact form with a wrong number of discharges")
	}
	return s, nil
}

// identified gives a macaroon with an empty identifier another one.
func identified(m *macaroon.Macaroon, id []byte) (*macaroon.Macaroon, error) {
	data, err := m.MarshalBinary()
	if err != nil {
		return nil, err
	}
	at := 1
	if n := len(m.Location()); n > 0 {
		at += 1 + len(binary.AppendUvarint(nil, uint64(n))) + n
	}
	head := append(bytes.Clone(data[:at]), 2)
	head = append(binary.AppendUvarint(head, uint64(len(id))), id...)
	var out macaroon.Macaroon
	return &out, out.UnmarshalBinary(append(head, data[at+2:]...))
}

func (w *world) referenceIdentifier(id []byte) (Identity, []byte, error) {
	read := bytes.NewReader(id)
	var head struct {
		Version, Mode byte
		Key           [4]byte
		Session       [16]byte
		High          uint16
		Low           uint32
	}
	if err := binary.Read(read, binary.BigEndian, &head); err != nil {
		return Identity{}, nil, err
	}
	var names [2]string
	for i, longest := range []uint64{255, 4 * 512} {
		n, err := binary.ReadUvarint(read)
		if err != nil || n > longest || int(n) > read.Len() {
			return Identity{}, nil, errors.New("bad name")
		}
		name := make([]byte, n)
		_, _ = read.Read(name)
		names[i] = string(name)
	}
	canonical := 28 + len(binary.AppendUvarint(nil, uint64(len(names[0])))) + len(names[0]) +
		len(binary.AppendUvarint(nil, uint64(len(names[1])))) + len(names[1])
	payload := ""
	if head.Version == 2 {
		n, err := binary.ReadUvarint(read)
		if err != nil || n == 0 || n > 2048 || int(n) > read.Len() {
			return Identity{}, nil, errors.New("bad payload")
		}
		payload = string(id[len(id)-int(n):])
		canonical += len(binary.AppendUvarint(nil, n)) + int(n)
		head.Version = 1
	}
	if head.Version != 1 || head.Mode < 1 || head.Mode > 3 || head.Session == [16]byte{} || names[0] == "" || canonical != len(id) {
		return Identity{}, nil, errors.New("bad identifier")
	}
	identity := Identity{
		User: names[0], Device: names[1], Session: head.Session, Mode: caveat.Mode(head.Mode),
		Minted: time.UnixMilli(int64(head.High)<<32 | int64(head.Low)).UTC(), Payload: payload,
	}
	for _, k := range w.cfg.Keys {
		mac := hmac.New(sha256.New, k.Key[:])
		mac.Write([]byte("discharger/homeserver master key id v1\x00"))
		if bytes.Equal(mac.Sum(nil)[:4], head.Key[:]) {
			mac = hmac.New(sha256.New, k.Key[:])
			mac.Write([]byte("discharger/homeserver access macaroon root key v1\x00"))
			mac.Write(id)
			return identity, mac.Sum(nil), nil
		}
	}
	return Identity{}, nil, errors.New("unknown key")
}

var epochPattern = regexp.MustCompile(`^declared epoch (0|[1-9][0-9]*)$`)

// referenceRules applies the rules about caveats, and completes the identity.
func referenceRules(id *Identity, s macaroon.Slice, r Request, now time.Time) error {
	if len(s) != 2 {
		return errors.New("not one discharge")
	}
	access, discharge := s[0].Caveats(), s[1].Caveats()
	if len(access[0].VerificationId) == 0 {
		return errors.New("first caveat is not ours")
	}
	fixed := 1
	if id.Mode == caveat.ModeRotate {
		fixed = 2
		if len(discharge) < 2 || !epochPattern.Match(discharge[1].Id) {
			return errors.New("no epoch")
		}
		n, err := strconv.ParseUint(strings.Fields(string(discharge[1].Id))[2], 10, 64)
		if err != nil {
			return err
		}
		id.Epoch = n
	}
	if len(discharge) < fixed || !strings.HasPrefix(string(discharge[0].Id), "time-before ") {
		return errors.New("no expiry")
	}
	holders := append(append([]macaroon.Caveat(nil), access[1:]...), discharge[0])
	for _, c := range append(holders, discharge[fixed:]...) {
		if len(c.VerificationId) > 0 {
			return errors.New("a third-party caveat of the holder's")
		}
		if err := referenceCondition(id, string(c.Id), r, now); err != nil {
			return err
		}
	}
	return nil
}

func referenceCondition(id *Identity, condition string, r Request, now time.Time) error {
	if arg, ok := strings.CutPrefix(condition, "time-before "); ok {
		t, err := time.Parse(time.RFC3339Nano, arg)
		if err != nil || !t.After(now) {
			return errors.New("expired")
		}
		if id.Expires.IsZero() || t.Before(id.Expires) {
			id.Expires = t.UTC()
		}
		return nil
	}
	arg, ok := strings.CutPrefix(condition, "client-ip ")
	if !ok {
		return errors.New("unknown")
	}
	client := r.ClientIP.Unmap().WithZone("")
	if a, err := netip.ParseAddr(arg); err == nil {
		if a.Zone() != "" || a.Unmap() != client {
			return errors.New("another address")
		}
		return nil
	}
	p, err := netip.ParsePrefix(arg)
	if err != nil {
		return err
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return errors.New("mixed range")
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if !p.Contains(client) {
		return errors.New("another address")
	}
	return nil
}

// agree compares Verify with the reference, twice: the cached result must not differ
// from the computed one.
func (w *world) agree(t *testing.T, text string, r Request) (accepted bool) {
	t.Helper()
	want, wantErr := w.reference(text, r)
	for range 2 {
		got, err := w.Verify(context.Background(), text, r)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("Verify returns %v, the reference %v\n%s", err, wantErr, text)
		}
		if err == nil && got != want {
			t.Fatalf("Verify returns %+v, the reference %+v", got, want)
		}
		if err != nil && got != (Identity{}) {
			t.Fatalf("identity %+v beside %v", got, err)
		}
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Kind == nil) {
			t.Fatalf("error %v is no *Error", err)
		}
	}
	return wantErr == nil
}

// program is a way to put a bundle together, read from fuzz input. Input that
// has ended reads as zeros.
type program struct{ rest []byte }

func (p *program) next(n int) int {
	if len(p.rest) == 0 {
		return 0
	}
	b := p.rest[0]
	p.rest = p.rest[1:]
	return int(b) % n
}

// palette are conditions that a holder may come up with, or a discharger.
var palette = []string{
	rawmacaroon.TimeBefore(testNow.Add(5 * time.Minute)), "declared epoch 3", "client-ip 192.0.2.7",
	rawmacaroon.TimeBefore(testNow), rawmacaroon.TimeBefore(testNow.Add(1)), "time-before tomorrow", "time-before",
	"time-before 2026-11-24T12:00:00+01:00", "time-before 2026-11-24T10:00:01,5Z", "time-before 9999-12-31T23:59:59Z",
	"client-ip 192.0.2.0/24", "client-ip 198.51.100.1", "client-ip ::ffff:192.0.2.7", "client-ip ::ffff:192.0.2.0/120",
	"client-ip ::/0", "client-ip 0.0.0.0/0", "client-ip ::ffff:0:0/90", "client-ip 2001:db8::7", "client-ip x", "client-ip",
	"declared epoch 99", "declared epoch 03", "declared epoch", "declared user @root:example.org", "declared",
	"moon-phase full", "", " ", "time-before  x",
}

// bundle runs the program.
func (p *program) bundle(t *testing.T, w *world, other *macaroon.Macaroon) string {
	mode := caveat.Mode(p.next(3)) + caveat.ModeOpen
	version := p.next(8)
	params := MintParams{User: "@u:example.org", Mode: mode, Version: caveat.Version(version % 4)}
	if version >= 4 {
		params.Payload = bytes.Repeat([]byte("p"), 100*version)
	}
	access := w.mint(t, params)
	d := w.discharge(t, access, p.conditions(usual(mode))...)
	for range p.next(3) {
		access = narrowed(t, access, palette[p.next(len(palette))])
	}
	if p.next(8) == 7 {
		if err := access.AddThirdPartyCaveat([]byte("mine"), []byte("mine"), ""); err != nil {
			t.Fatal(err)
		}
	}
	s := macaroon.Slice{access}
	switch p.next(8) {
	case 1:
		s = append(s, d)
	case 2:
		s = append(s, bound(other, d))
	case 3:
		s = append(s, narrowed(t, bound(access, d), soon()))
	case 4:
		s = append(s, bound(access, w.discharge(t, other, usual(mode)...)))
	case 5:
		s = append(s, bound(access, d), bound(access, d))
	case 6:
	case 7:
		s = append(s, bound(access, d))
		s[0] = narrowed(t, access, soon())
	default:
		s = append(s, bound(access, d))
	}
	text, err := bundle.Encode(s)
	if p.next(2) == 1 {
		text, err = bundle.EncodeStandard(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.damage(t, text)
}

// conditions changes the conditions of the discharger.
func (p *program) conditions(usual []string) []string {
	switch p.next(4) {
	case 1:
		usual = nil
	case 2:
		usual = usual[:1]
	case 3:
		usual = append([]string{palette[p.next(len(palette))]}, usual...)
	}
	for range p.next(4) {
		usual = append(usual, palette[p.next(len(palette))])
	}
	return usual
}

// damage changes a byte of the decoded text, or cuts it.
func (p *program) damage(t *testing.T, text string) string {
	data := mustDecode(t, text)
	at := (p.next(256)<<8 | p.next(256)) % len(data)
	switch p.next(6) {
	case 1:
		data[at] ^= byte(1 << p.next(8))
	case 2:
		data = data[:at]
	case 3:
		data = append(data[:at:at], append([]byte{byte(p.next(256))}, data[at:]...)...)
	}
	return wire.EncodeBase64(data)
}

// FuzzVerify puts bundles together in all sorts of ways and compares the
// verdict with the reference's.
func FuzzVerify(f *testing.F) {
	for _, seed := range [][]byte{nil, {1}, {2}, {1, 2, 0, 1, 2}, {1, 0, 3, 20}, {0, 0, 0, 0, 1, 2}, {0, 0, 0, 0, 0, 7}, {0, 0, 0, 0, 0, 0, 1}} {
		f.Add(seed)
	}
	w := newWorld(f, func(c *Config) { c.CacheBytes = 128 << 10 })
	other := w.mint(f, alice(caveat.ModeOpen))
	clients := []netip.Addr{someClient.ClientIP, netip.MustParseAddr("::ffff:192.0.2.7"), netip.MustParseAddr("2001:db8::7"), {}}
	f.Fuzz(func(t *testing.T, input []byte) {
		p := program{rest: input}
		r := Request{ClientIP: clients[p.next(len(clients))]}
		w.agree(t, p.bundle(t, w, other), r)
	})
}

// FuzzVerifyText begins with good texts and lets the fuzzer change them.
func FuzzVerifyText(f *testing.F) {
	w := newWorld(f, func(c *Config) { c.CacheBytes = 128 << 10 })
	for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate} {
		text := w.bundle(f, mode)
		f.Add(text)
		f.Add(standard(f, text))
	}
	f.Add(encode(f, w.mint(f, alice(caveat.ModeHeld))))
	f.Fuzz(func(t *testing.T, text string) { w.agree(t, text, someClient) })
}

// TestAgreesWithReference is FuzzVerify for input that is the same
// every time, and makes sure that enough of it is accepted to mean anything.
func TestAgreesWithReference(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	other := w.mint(t, alice(caveat.ModeOpen))
	random, accepted := seeded(7), 0
	const rounds = 4000
	for range rounds {
		input := make([]byte, 24)
		_, _ = random.Read(input)
		for i := range input {
			if input[i]%3 > 0 {
				input[i] = 0 // the usual, most of the time
			}
		}
		p := program{rest: input}
		if w.agree(t, p.bundle(t, w, other), someClient) {
			accepted++
		}
	}
	t.Logf("%d of %d accepted", accepted, rounds)
	if accepted < rounds/20 || accepted > rounds*19/20 {
		t.Errorf("%d of %d accepted: the test is lopsided", accepted, rounds)
	}
}
