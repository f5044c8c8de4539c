package homeserver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

func TestMintSealsTheCondition(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	p := MintParams{
		User: "@alice:example.org", Device: "ABCDEFGHIJ", Mode: caveat.ModeRotate, Policy: "staff", MaxTTL: time.Minute,
		Expires: testNow.Add(time.Hour), Labels: map[string]string{"role": "admin"}, Version: caveat.V3,
	}
	minted, err := w.Mint(p)
	if err != nil {
		t.Fatal(err)
	}
	caveats := minted.Macaroon.Caveats()
	if len(caveats) != 1 || caveats[0].Location != testLocation || len(caveats[0].VerificationId) != vidSize {
		t.Fatalf("caveats are %+v, want one third-party caveat", caveats)
	}
	opened, err := w.opener.Open(caveats[0].Id)
	if err != nil {
		t.Fatal(err)
	}
	if opened.Version != caveat.V3 || len(opened.RootKey) != rootKeySize {
		t.Errorf("caveat has version %d and a root key of %d bytes", opened.Version, len(opened.RootKey))
	}
	got, err := caveat.ParseCondition(opened.Condition)
	if err != nil {
		t.Fatal(err)
	}
	want := caveat.Condition{
		Session: minted.Session, User: p.User, Device: p.Device, Minted: testNow.UnixMilli(), Mode: p.Mode,
		Policy: "staff", MaxTTL: time.Minute, Expires: testNow.Add(time.Hour).UnixMilli(), Labels: p.Labels,
	}
	for _, c := range []caveat.Condition{got, minted.Condition} {
		text, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if wanted, _ := want.Encode(); text != wanted {
			t.Errorf("condition %s, want %s", text, wanted)
		}
	}
	if text, err := minted.Text(); err != nil || text != encode(t, minted.Macaroon) {
		t.Errorf("Text gives %q, %v", text, err)
	}
}

func TestMintRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	good := alice(caveat.ModeOpen)
	for name, edit := range map[string]func(*MintParams){
		"no user":     func(p *MintParams) { p.User = "" },
		"long user":   func(p *MintParams) { p.User = strings.Repeat("u", 256) },
		"long device": func(p *MintParams) { p.Device = strings.Repeat("d", 513) },
		"too much in all": func(p *MintParams) {
			p.Device, p.Payload = strings.Repeat("\x00", 512), make([]byte, MaxPayload)
			p.Labels = map[string]string{"a": strings.Repeat("x", 256), "b": strings.Repeat("x", 256), "c": strings.Repeat("x", 256)}
			for _, k := range strings.Split("defghijklm", "") {
				p.Labels[k] = strings.Repeat("\x00", 64)
			}
		},
		"no mode":          func(p *MintParams) { p.Mode = 0 },
		"unknown mode":     func(p *MintParams) { p.Mode = 9 },
		"unknown version":  func(p *MintParams) { p.Version = 9 },
		"half a second":    func(p *MintParams) { p.MaxTTL = time.Second / 2 },
		"ended already":    func(p *MintParams) { p.Expires = testNow },
		"policy with path": func(p *MintParams) { p.Policy = "../x" },
	} {
		t.Run(name, func(t *testing.T) {
			p := good
			edit(&p)
			if m, err := w.Mint(p); err == nil || m.Macaroon != nil {
				t.Error("minted")
			}
		})
	}
	late := newWorld(t, func(c *Config) { *c = c.WithClock(func() time.Time { return time.UnixMilli(1 << 48) }) })
	if _, err := late.Mint(good); err == nil {
		t.Error("minted after the end of time")
	}
}

func TestIdentifier(t *testing.T) {
	t.Parallel()
	for _, names := range [][3]string{
		{"u", "", ""}, {"@alice:example.org", "ABCDEFGHIJ", ""},
		{strings.Repeat("u", 127), strings.Repeat("d", 128), "p"},
		{strings.Repeat("u", 255), strings.Repeat("d", 255), strings.Repeat("p", MaxPayload)},
		{"u", strings.Repeat("d", 256), ""}, {"u", strings.Repeat("𝕕", 512), "p"}, {"u", strings.Repeat("\x00", 512), ""},
		{"u", "d", strings.Repeat("p", 127)}, {"u", "d", strings.Repeat("p", 128)},
	} {
		t.Run(fmt.Sprintf("%d and %d and %d bytes", len(names[0]), len(names[1]), len(names[2])), func(t *testing.T) {
			want := identifier{
				mode: caveat.ModeHeld, key: keyID{1, 2, 3, 4}, session: caveat.SessionID{15: 9}, minted: 0x0102_0304_0506,
				user: []byte(names[0]), device: []byte(names[1]), payload: []byte(names[2]),
			}
			b := want.append(nil)
			got, ok := parseIdentifier(b)
			if !ok || !bytes.Equal(got.append(nil), b) || got.minted != want.minted || string(got.user) != names[0] || string(got.device) != names[1] ||
				string(got.payload) != names[2] {
				t.Errorf("got %+v, %v", got, ok)
			}
			for cut := range b {
				if _, ok := parseIdentifier(b[:cut]); ok {
					t.Fatalf("parsed when cut at %d", cut)
				}
			}
			if _, ok := parseIdentifier(append(b, 0)); ok {
				t.Error("parsed with a byte too many")
			}
		})
	}
}

func FuzzParseIdentifier(f *testing.F) {
	id := identifier{mode: caveat.ModeOpen, session: caveat.SessionID{1}, user: []byte("u"), device: bytes.Repeat([]byte("d"), 200)}
	f.Add(id.append(nil))
	id.payload = bytes.Repeat([]byte("p"), 200)
	f.Add(id.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, ok := parseIdentifier(b)
		if ok && !bytes.Equal(id.append(nil), b) {
			t.Fatalf("%x is not written like that", b)
		}
		if !ok && (id.user != nil || id.session != caveat.SessionID{}) {
			t.Fatal("something beside a failure")
		}
	})
}

// The formats are for ever: bundles minted with them are still in use.
func TestFormatsAreFixed(t *testing.T) {
	t.Parallel()
	var key Key
	for i := range key.Key {
		key.Key[i] = byte(i)
	}
	mac := func(label string, data []byte) []byte {
		h := hmac.New(sha256.New, key.Key[:])
		h.Write(append([]byte(label), data...))
		return h.Sum(nil)
	}
	id := identifier{
		mode: caveat.ModeRotate, key: keyID(key.ID()), session: caveat.SessionID([]byte("0123456789abcdef")), minted: 1795514400000,
		user: []byte("@alice:example.org"), device: []byte("DEV"),
	}
	const want = "0102" + "dacfd309" + "30313233343536373839616263646566" + "01a20cff7d00" +
		"1240616c6963653a6578616d706c652e6f7267" + "03444556"
	b := id.append(nil)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("identifier\n%s, want\n%s", got, want)
	}
	if got := key.ID(); !bytes.Equal(got[:], mac("discharger/homeserver master key id v1\x00", nil)[:4]) {
		t.Errorf("key id is %x", got)
	}
	if got := key.rootKey(b); !bytes.Equal(got[:], mac("discharger/homeserver access macaroon root key v1\x00", b)) {
		t.Errorf("root key is %x", got)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	k := testKey(t, 2)
	if got, err := ParseKey(k.Encode()); err != nil || got != k {
		t.Errorf("ParseKey(Encode()) fails: %v", err)
	}
	if got, err := ParseKey(wire.EncodeBase64(k.Key[:])); err != nil || got != k {
		t.Errorf("ParseKey of base64url fails: %v", err)
	}
	for _, bad := range []string{"", "AAAA", k.Encode() + "AAAA", "not base64 at all!", k.Encode()[1:]} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("ParseKey(%q) succeeds", bad)
		} else if bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error repeats the text: %v", err)
		}
	}
	if a := NewKey(); a == (Key{}) || a == NewKey() {
		t.Errorf("NewKey returns %x", a.Key[:4])
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := newWorld(t, nil).cfg
	k := testKey(t, 2)
	for name, edit := range map[string]func(*Config){
		"no keys":          func(c *Config) { c.Keys = nil },
		"a key of zeros":   func(c *Config) { c.Keys = Keys{k, {}} },
		"a key twice":      func(c *Config) { c.Keys = Keys{k, k} },
		"no key pair":      func(c *Config) { c.KeyPair = caveat.KeyPair{} },
		"no discharger":    func(c *Config) { c.Discharger = caveat.PublicKey{} },
		"no location":      func(c *Config) { c.Location = "" },
		"relative":         func(c *Config) { c.Location = "/discharge" },
		"another scheme":   func(c *Config) { c.Location = "ftp://refresh.example.org" },
		"negative leeway":  func(c *Config) { c.Leeway = -1 },
		"mismatched pairs": func(c *Config) { c.KeyPair.Public = c.Discharger },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			edit(&cfg)
			if _, err := New(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
	cfg := good
	cfg.Discharger = caveat.PublicKey{1}
	if _, err := New(cfg); !errors.Is(err, caveat.ErrWeakKey) {
		t.Errorf("a discharger's key of low order gives %v", err)
	}
	cfg = good
	cfg.now = nil
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m, err := h.Mint(alice(caveat.ModeOpen))
	if err != nil || time.Since(time.UnixMilli(m.Condition.Minted)).Abs() > time.Hour {
		t.Errorf("defaults do not mint: %v", err)
	}
}

// A bundle made once, by hand, from an earlier state of this package.
func TestOldBundle(t *testing.T) {
	t.Parallel()
	var key Key
	for i := range key.Key {
		key.Key[i] = byte(i)
	}
	w := newWorld(t, func(c *Config) { c.Keys = Keys{key} })
	got := w.accepted(t, oldBundle, someClient)
	want := Identity{
		User: "@alice:example.org", Device: "ABCDEFGHIJ", Session: got.Session, Mode: caveat.ModeRotate, Epoch: 3,
		Minted: testNow, Expires: testNow.Add(5 * time.Minute),
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(mustDecode(t, standard(t, oldBundle))); err != nil {
		t.Error(err)
	}
}

const oldBundle = "AQIBC2V4YW1wbGUub3JnAjoBAtrP0wkS9KRlTvor0R46npfi4jDhAaIM_30AEkBhbGljZTpleGFtcGxlLm9yZwpBQkNERUZHSElKAAEbaHR0cHM6Ly9yZWZyZXNoLmV4YW1wbGUub3JnAucBArAfPD0qkrc0ThEsu8LBZ0tBOlo1OZqXjhSrxA39NrSv--JCZHt8gx0ckCAVdASJ6hVUJjhftnjXEPNn--WZHFfVnNPRGZHvhjWEr0fDCDRngCYMwu_i0-ucBtS83eyXPVcFnGdM2JnFf_nuPnbopy7DAWHTFReYmSjKrFah80C01l99HkbUVMYmN1TYP8aFI-GPUc4IGmWRUQTBZeraqzliH2Og7gH6K064Jkmk8kcp1Wx3NrowLkVEdA6mPzc6SZRlNYwBnCJqIb_Fg0C2Cl5Kq6_JkGNCFBZTgM75DK3l2RsOISQGBEgHSusQ-R7SrFwUr0JQLw82pfLtCMnAYDn1xQhluod1NHgBfnRMZGFC-wUMnk-_vg4FoGOkm5nKHZUJzhK4hJwIOGtkuIdjaukAAAYgJwPR3xpLJIdMD4nOt-7tqy3dnm_d3S84HuPb41b1A_oCAgAAAiB0aW1lLWJlZm9yZSAyMDI2LTExLTI0VDEwOjA1OjAwWgACEGRlY2xhcmVkIGVwb2NoIDMAAAYgrYvs_r0UQjWiLN5y8o7THw5zGE-ws5rNkMJ5HFuZlI8"

// A session of the longest names has a bundle that verifies, in each encoding. V1,
// which encodes a condition three times, has room for ASCII only.
func TestLongestNames(t *testing.T) {
	t.Parallel()
	for name, device := range map[string]string{
		"letters": strings.Repeat("d", caveat.MaxDevice), "wide": strings.Repeat("𝕕", caveat.MaxDevice),
		"escaped": strings.Repeat("\x01", caveat.MaxDevice), "quotes": strings.Repeat(`"`, caveat.MaxDevice), "path": "../a/b?c#d%2f",
	} {
		for _, version := range []caveat.Version{caveat.V1, caveat.V2, caveat.V3} {
			if version == caveat.V1 && name != "letters" && name != "path" {
				continue
			}
			t.Run(fmt.Sprintf("%s V%d", name, version), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, nil)
				p := alice(caveat.ModeOpen)
				p.User, p.Device, p.Version = strings.Repeat(`\`, caveat.MaxUser), device, version
				access := w.mint(t, p)
				text := encode(t, access, bound(access, w.discharge(t, access, usual(p.Mode)...)))
				if len(text) > bundle.MaxLength {
					t.Fatalf("bundle of %d characters", len(text))
				}
				id, err := w.Verify(t.Context(), text, Request{})
				if err != nil || id.Device != device || id.User != p.User {
					t.Fatalf("%d characters: %v", len(text), err)
				}
			})
		}
	}
}
