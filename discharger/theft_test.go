package discharger_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	hs "github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/testkit"
)

// victim is a homeserver in front of the service of a world.
type victim struct {
	*world
	t      *testing.T
	hs     *hs.Homeserver
	master hs.Key
	key    discharger.RefreshKey
	path   string // of the store
}

func newVictim(t *testing.T) *victim {
	v := &victim{t: t}
	var err error
	if v.key, err = discharger.NewRefreshKey(nil); err != nil {
		t.Fatal(err)
	}
	v.world = newWorld(t, func(c *discharger.Config) {
		v.path = filepath.Join(t.TempDir(), "stolen.db")
		st, err := bolt.Open(bolt.Config{Path: v.path}.WithClock(c.Clock()))
		testkit.NoError(t, err)
		t.Cleanup(func() { st.Close() })
		c.Store, c.RefreshKeys = st, []discharger.RefreshKey{v.key}
	})
	v.master = hs.NewKey()
	v.hs = v.homeserver(v.world.hs["a.example"], v.keys.Public)
	return v
}

// homeserver returns a homeserver with the victim's master key and these other keys.
func (v *victim) homeserver(pair caveat.KeyPair, service caveat.PublicKey) *hs.Homeserver {
	v.t.Helper()
	made, err := hs.New(hs.Config{
		Name: "a.example", Keys: hs.Keys{v.master}, KeyPair: pair, Discharger: service,
		Location: "https://discharger.example",
	}.WithClock(v.clock))
	testkit.NoError(v.t, err)
	return made
}

// ownSession is a session with its access macaroon.
type ownSession struct {
	*login
	v      *victim
	access *macaroon.Macaroon
}

func (v *victim) session(mode caveat.Mode, change ...func(*hs.MintParams)) *ownSession {
	v.t.Helper()
	p := hs.MintParams{User: "@alice:a.example", Device: "PHONE", Mode: mode}
	for _, f := range change {
		f(&p)
	}
	m, err := v.hs.Mint(p)
	testkit.NoError(v.t, err)
	s := &ownSession{v: v, access: m.Macaroon}
	s.login = &login{w: v.world, homeserver: "a.example", version: caveat.V2, cond: m.Condition}
	for _, c := range m.Macaroon.Caveats() {
		if c.VerificationId != nil {
			s.login.caveat = c.Id
		}
	}
	return s
}

// must demands a discharge.
func (s *ownSession) must(opts ...option) *discharger.Grant {
	s.v.t.Helper()
	g, err := s.discharge(opts...)
	if err != nil {
		s.v.t.Fatalf("discharge: %v", err)
	}
	return g
}

// bundle returns the bundle of a discharge.
func (s *ownSession) bundle(g *discharger.Grant) string {
	s.v.t.Helper()
	body, err := g.Discharge.AppendJSON(nil)
	testkit.NoError(s.v.t, err)
	var d bakery.Macaroon
	testkit.NoError(s.v.t, json.Unmarshal(body, &d))
	return s.bind(d.M())
}

func (s *ownSession) bind(discharge *macaroon.Macaroon) string {
	s.v.t.Helper()
	bound := discharge.Clone()
	bound.Bind(s.access.Signature())
	text, err := bundle.Encode(macaroon.Slice{s.access, bound})
	testkit.NoError(s.v.t, err)
	return text
}

// forge makes a discharge with a root key.
func (s *ownSession) forge(rootKey []byte) *macaroon.Macaroon {
	s.v.t.Helper()
	d, err := macaroon.New(rootKey, s.login.caveat, "", macaroon.V2)
	testkit.NoError(s.v.t, err)
	testkit.NoError(s.v.t, d.AddFirstPartyCaveat([]byte(rawmacaroon.TimeBefore(s.v.clock().Add(time.Hour)))))
	return d
}

// acts reports whether the homeserver accepts a bundle as Alice's.
func (v *victim) acts(bundle string) bool {
	id, err := v.hs.Verify(context.Background(), bundle, hs.Request{ClientIP: away})
	return err == nil && id.User == "@alice:a.example"
}

// TestThief has a subtest for each row of SECURITY.md, except that of the key that
// signs security events, whose test is in package secevent.
func TestThief(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, *victim){
		"access macaroon, open":                    thiefOpen,
		"access macaroon, rotate":                  thiefRotate,
		"access macaroon, held":                    thiefHeld,
		"bundle":                                   thiefBundle,
		"bundle and refresh token":                 thiefBoth,
		"bundle and refresh token, shared address": thiefSharedAddress,
		"refresh token alone":                      thiefTokenAlone,
		"refresh token narrowed to an address":     thiefNarrowed,
		"homeserver's API key":                     thiefAPIKey,
		"homeserver's sealing key":                 thiefSealingKey,
		"homeserver's master key":                  thiefMasterKey,
		"service's key pair":                       thiefServiceKey,
		"service's refresh-token key":              thiefRefreshKey,
		"copy of the store":                        thiefCopy,
		"write access to the store":                thiefWrites,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newVictim(t))
		})
	}
}

// thiefOpen can fetch discharges and act as the user until the session ends. It cannot
// list or end other sessions of the user.
func thiefOpen(t *testing.T, v *victim) {
	s := v.session(caveat.ModeOpen)
	s.must()
	last := s.bundle(s.must(at(away)))
	if !v.acts(last) {
		t.Error("the discharge is refused")
	}
	if _, _, err := s.own(at(away)); !isRefusal(err, session.ReasonHomeserverRequired) {
		t.Errorf("listed the user's sessions: %v", err)
	}
	if err := s.logout(discharger.ScopeUser, at(away)); !isRefusal(err, session.ReasonHomeserverRequired) {
		t.Errorf("ended the user's sessions: %v", err)
	}
	testkit.NoError(t, s.logout(discharger.ScopeSession))
	s.over(session.ReasonSessionEnded, false, at(away))
	v.later(5 * time.Minute)
	if v.acts(last) {
		t.Error("the last discharge outlives its time")
	}
}

// thiefRotate can activate the session before the first refresh token is used, which
// ends it for both. Afterwards it can do nothing.
func thiefRotate(t *testing.T, v *victim) {
	for _, first := range []string{"the owner", "the thief"} {
		s := v.session(caveat.ModeRotate, func(p *hs.MintParams) { p.Device = first })
		var mine, stolen *discharger.Grant
		if first == "the owner" {
			mine = s.must()
			stolen = s.must(at(away))
		} else {
			stolen = s.must(at(away))
			mine = s.must()
		}
		if !v.acts(s.bundle(stolen)) || bytes.Equal(mine.RefreshToken, stolen.RefreshToken) {
			t.Fatalf("%s first: the same token", first)
		}
		mine = s.must(token(mine.RefreshToken))
		s.alive(session.ReasonTokenRequired, at(away))
		if _, _, err := s.own(at(away)); !isRefusal(err, session.ReasonTokenRequired) {
			t.Errorf("listed the user's sessions: %v", err)
		}
		s.over(session.ReasonTokenReused, true, token(stolen.RefreshToken), at(away))
		s.over(session.ReasonTokenReused, true, token(mine.RefreshToken))
	}
	s := v.session(caveat.ModeRotate)
	s.must()
	for _, kind := range []error{s.logout(discharger.ScopeSession, at(away)), s.logout(discharger.ScopeUser, at(away))} {
		if kind != nil && !isRefusal(kind, session.ReasonTokenRequired) {
			t.Error(kind)
		}
	}
}

func thiefHeld(t *testing.T, v *victim) {
	s := v.session(caveat.ModeHeld)
	s.must(apiKey)
	s.alive(session.ReasonHomeserverRequired, at(away))
	if err := s.logout(discharger.ScopeSession, at(away)); !isRefusal(err, session.ReasonHomeserverRequired) {
		t.Errorf("logged out: %v", err)
	}
}

// apiKey is the API key of the session's own homeserver.
func apiKey(r *discharger.Request) { r.Homeserver = "a.example" }

func otherKey(r *discharger.Request) { r.Homeserver = "b.example" }

// thiefBundle can act as the user until the discharge expires.
func thiefBundle(t *testing.T, v *victim) {
	for _, mode := range []caveat.Mode{caveat.ModeRotate, caveat.ModeHeld} {
		s := v.session(mode, func(p *hs.MintParams) { p.Device = mode.String() })
		g := s.must(apiKey)
		if mode == caveat.ModeRotate {
			g = s.must(token(g.RefreshToken))
		}
		bundle := s.bundle(g)
		if !v.acts(bundle) {
			t.Errorf("%v: refused at once", mode)
		}
		if g, err := s.discharge(at(away)); g != nil || err == nil {
			t.Errorf("%v: refreshed without a token", mode)
		}
		v.later(5 * time.Minute)
		if v.acts(bundle) {
			t.Errorf("%v: accepted after its time", mode)
		}
	}
}

// thiefBoth gets one discharge by one exchange. If it returns with the token from it,
// the session ends softly for both by the owner's second next refresh, in every order of
// the two, and with and without reports of the homeserver.
func thiefBoth(t *testing.T, v *victim) {
	n := 0
	for _, reports := range []bool{true, false} {
		for order := range 8 { // bit i: the thief is first in round i
			n++
			s := v.session(caveat.ModeRotate, func(p *hs.MintParams) { p.Device = string(rune('A' + n)) })
			mine := s.must().RefreshToken
			mine = s.must(token(mine)).RefreshToken
			stolen, gained, over := mine, 0, false
			present := func(tok *[]byte, opts ...option) bool {
				g, err := s.discharge(append(opts, token(*tok))...)
				var r *discharger.Refusal
				switch {
				case errors.As(err, &r) && r.Reason == session.ReasonTokenReused && r.Ended && r.SoftLogout:
					over = true
					return false
				case err != nil:
					t.Fatal(err)
				}
				*tok = g.RefreshToken
				if reports {
					testkit.NoError(t, v.service.Seen(context.Background(), s.user(), s.cond.Session, g.Epoch))
				}
				return true
			}
			for round := range 3 {
				parts := []func(){
					func() { present(&mine) },
					func() {
						if present(&stolen, at(away)) {
							gained++
						}
					},
				}
				if order>>round&1 == 1 {
					slices.Reverse(parts)
				}
				for _, f := range parts {
					if !over {
						f()
					}
				}
				v.later(5 * time.Minute)
			}
			if !over || gained < 1 || gained > 2 {
				t.Errorf("reports %v, order %b: over %v, the thief gained %d", reports, order, over, gained)
			}
			for _, tok := range [][]byte{mine, stolen} {
				s.over(session.ReasonTokenReused, true, token(tok))
			}
		}
	}
}

// thiefSharedAddress has the owner's address and client name: it is refused only when
// the owner was faster, and the session lives.
func thiefSharedAddress(t *testing.T, v *victim) {
	s := v.session(caveat.ModeRotate)
	mine := s.must(token(s.must().RefreshToken)).RefreshToken
	stolen := mine
	mine = s.must(token(mine)).RefreshToken
	v.later(time.Minute)
	stolen = s.must(token(stolen)).RefreshToken // beside it
	mine = s.must(token(mine)).RefreshToken
	s.alive(session.ReasonTokenSuperseded, token(stolen))
	s.must(token(mine))
}

// thiefTokenAlone gets nothing that a homeserver accepts, since it has no access
// macaroon. It can log the session out.
func thiefTokenAlone(t *testing.T, v *victim) {
	s := v.session(caveat.ModeRotate)
	tok := s.must().RefreshToken
	g := s.must(token(tok), at(away)) // the thief has the caveat too
	body, err := g.Discharge.AppendJSON(nil)
	testkit.NoError(t, err)
	var d bakery.Macaroon
	testkit.NoError(t, json.Unmarshal(body, &d))
	alone, err := bundle.Encode(macaroon.Slice{d.M()})
	testkit.NoError(t, err)
	if v.acts(alone) {
		t.Error("a discharge alone is accepted")
	}
	other := v.session(caveat.ModeRotate, func(p *hs.MintParams) { p.Device = "OTHER" })
	other.must()
	if v.acts(other.bind(d.M())) {
		t.Error("a discharge is accepted with another access macaroon")
	}
	other.alive(session.ReasonTokenInvalid, token(tok), at(away))
	testkit.NoError(t, s.logout(discharger.ScopeSession, token(tok), at(away)))
	s.over(session.ReasonSessionEnded, false, token(g.RefreshToken))
}

// thiefNarrowed gets discharges only for the address in the token.
func thiefNarrowed(t *testing.T, v *victim) {
	s := v.session(caveat.ModeRotate)
	narrow := attenuate(t, s.must().RefreshToken, "client-ip "+phone.String())
	s.alive(session.ReasonTokenInvalid, token(narrow), at(away))
	g := s.must(token(narrow))
	if v.acts(s.bundle(g)) { // from away
		t.Error("the discharge is accepted from another address")
	}
	if _, err := v.hs.Verify(context.Background(), s.bundle(g), hs.Request{ClientIP: phone}); err != nil {
		t.Errorf("at its own address: %v", err)
	}
	s.alive(session.ReasonTokenInvalid, token(g.RefreshToken), at(away))
}

// thiefAPIKey can list and end every session of the homeserver, and fetch for held
// sessions whose caveat it has. It has no access to other homeservers' sessions.
func thiefAPIKey(t *testing.T, v *victim) {
	ctx := context.Background()
	s := v.session(caveat.ModeHeld)
	if !v.acts(s.bundle(s.must(apiKey, at(away)))) {
		t.Error("the discharge is refused")
	}
	if list := v.sessions(s.user()); len(list) != 1 {
		t.Errorf("listed %+v", list)
	}
	other := v.login(caveat.ModeHeld)
	other.homeserver = "b.example"
	other.seal()
	other.must(otherKey)
	other.alive(session.ReasonHomeserverRequired, apiKey)
	open := v.login(caveat.ModeOpen)
	open.homeserver = "b.example"
	open.seal()
	lie := func(r *discharger.Request) { r.OnBehalfOf = &session.Party{Addr: phone, Client: "Element"} }
	open.must(at(away), apiKey, lie) // ignored for another homeserver's session
	for _, info := range v.sessions(open.user()) {
		if info.ID == open.cond.Session && info.Last.Addr != away {
			t.Errorf("another homeserver named the client: %+v", info.Last)
		}
	}
	out, err := v.service.RevokeUser(ctx, s.user(), discharger.Order{})
	if err != nil || out.Ended != 1 {
		t.Errorf("ended %+v, %v", out, err)
	}
	s.over(session.ReasonSessionEnded, false, apiKey)
	other.must(otherKey)
}

// thiefSealingKey can open the caveats that the homeserver made, and so make a discharge
// for every access macaroon that it also has.
func thiefSealingKey(t *testing.T, v *victim) {
	s := v.session(caveat.ModeHeld)
	pair := v.world.hs["a.example"]
	// The box opens from both sides: swap sender and receiver.
	swapped := slices.Clone(s.login.caveat)
	copy(swapped[1:5], pair.Public[:4])
	copy(swapped[5:37], v.keys.Public[:])
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{pair}, Homeservers: []caveat.Homeserver{{Name: "service", Key: v.keys.Public}},
	})
	testkit.NoError(t, err)
	opened, err := opener.Open(swapped)
	testkit.NoError(t, err)
	if !v.acts(s.bind(s.forge(opened.RootKey))) {
		t.Error("the forged discharge is refused")
	}
	noAccess(t, v, pair, v.keys)
}

// noAccess demands that a thief with both pairs of keys can make no access
// macaroon that the homeserver accepts.
func noAccess(t *testing.T, v *victim, pair, service caveat.KeyPair) {
	t.Helper()
	own := *v
	own.master = hs.NewKey()
	own.hs = own.homeserver(pair, service.Public)
	s := own.session(caveat.ModeOpen, func(p *hs.MintParams) { p.Device = "FORGED" })
	if g := s.must(at(away)); v.acts(s.bundle(g)) {
		t.Error("an access macaroon was forged")
	}
}

// thiefMasterKey can act as any user of the homeserver: it can make access macaroon and
// discharge without the service.
func thiefMasterKey(t *testing.T, v *victim) {
	forger := *v
	pair, service := caveat.GenerateKey(), caveat.GenerateKey()
	forger.hs = v.homeserver(pair, service.Public)
	s := forger.session(caveat.ModeOpen)
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{service}, Homeservers: []caveat.Homeserver{{Name: "a.example", Key: pair.Public}},
	})
	testkit.NoError(t, err)
	opened, err := opener.Open(s.login.caveat)
	testkit.NoError(t, err)
	if !v.acts(s.bind(s.forge(opened.RootKey))) {
		t.Error("the forged bundle is refused")
	}
	if g, err := s.discharge(); g != nil || !errors.Is(err, discharger.ErrUnknownKey) {
		t.Errorf("the service discharges it: %v", err)
	}
}

// thiefServiceKey can open caveats, and so make a discharge for every session whose
// access macaroon it has.
func thiefServiceKey(t *testing.T, v *victim) {
	s := v.session(caveat.ModeHeld)
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{v.keys}, Homeservers: []caveat.Homeserver{{Name: "a.example", Key: v.world.hs["a.example"].Public}},
	})
	testkit.NoError(t, err)
	opened, err := opener.Open(s.login.caveat)
	testkit.NoError(t, err)
	if !v.acts(s.bind(s.forge(opened.RootKey))) {
		t.Error("the forged discharge is refused")
	}
	noAccess(t, v, v.world.hs["a.example"], v.keys)
}

// thiefRefreshKey can make refresh tokens, and so use any access macaroon that it has in
// mode rotate.
func thiefRefreshKey(t *testing.T, v *victim) {
	s := v.session(caveat.ModeRotate)
	s.must(token(s.must().RefreshToken))
	forger := newWorld(t, func(c *discharger.Config) { c.RefreshKeys = []discharger.RefreshKey{v.key} })
	fake := forger.login(caveat.ModeRotate, func(c *caveat.Condition) { c.Session = s.cond.Session })
	tok := fake.must().RefreshToken
	for range 5 {
		tok = fake.must(token(tok)).RefreshToken
	}
	if !v.acts(s.bundle(s.must(token(tok), at(away)))) {
		t.Error("the forged token is refused")
	}
	held := v.session(caveat.ModeHeld, func(p *hs.MintParams) { p.Device = "HELD" })
	held.must(apiKey)
	held.alive(session.ReasonHomeserverRequired, token(tok), at(away))
}

// thiefCopy sees users, devices, addresses and times. The store has no token, and no key
// to make one.
func thiefCopy(t *testing.T, v *victim) {
	s := v.session(caveat.ModeRotate)
	g := s.must()
	g = s.must(token(g.RefreshToken))
	l, err := v.store.List(context.Background(), s.user())
	testkit.NoError(t, err)
	record := l.Sessions[s.cond.Session]
	if !bytes.Contains(record, []byte("PHONE")) || !bytes.Contains(record, phone.AsSlice()) {
		t.Errorf("record %x does not show the device and its address", record)
	}
	var m macaroon.Macaroon
	testkit.NoError(t, m.UnmarshalBinary(g.RefreshToken))
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{v.keys}, Homeservers: []caveat.Homeserver{{Name: "a.example", Key: v.world.hs["a.example"].Public}},
	})
	testkit.NoError(t, err)
	opened, err := opener.Open(s.login.caveat)
	testkit.NoError(t, err)
	file, err := os.ReadFile(v.path)
	testkit.NoError(t, err)
	for name, secret := range map[string][]byte{
		"refresh token's signature": m.Signature(), "discharge's signature": g.Discharge.Signature[:], "root key": opened.RootKey,
		"caveat": s.login.caveat[37:],
	} {
		t.Run(name, func(t *testing.T) {
			if bytes.Contains(file, secret) || bytes.Contains(record, secret) {
				t.Error("the store has it")
			}
		})
	}
}

// thiefWrites can end sessions, and bring ended ones back. It can make no token.
func thiefWrites(t *testing.T, v *victim) {
	ctx := context.Background()
	s := v.session(caveat.ModeRotate)
	tok := s.must().RefreshToken
	before := s.stored()
	write := func(old, next []byte) {
		ok, err := v.store.Swap(ctx, store.Write{User: s.user(), Changes: []store.Change{{Session: s.cond.Session, Old: old, New: next}}})
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	testkit.NoError(t, s.logout(discharger.ScopeSession, token(tok)))
	s.over(session.ReasonSessionEnded, false, token(tok))
	write(s.stored(), before)
	tok = s.must(token(tok)).RefreshToken
	s.alive(session.ReasonTokenInvalid, token(flip(tok)), at(away))
}

// flip changes the signature of a token.
func flip(b []byte) []byte {
	out := slices.Clone(b)
	out[len(out)-1] ^= 1
	return out
}
