//go:build interop

package interop

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
)

// issuer is a homeserver.
type issuer interface {
	name() string
	// login makes a session on a device of its own.
	login(t *testing.T, user string, version caveat.Version, mode caveat.Mode) *login
	// check returns nil if the homeserver accepts the macaroons at a time.
	check(l *login, macaroons macaroon.Slice, at time.Time) error
}

// login is one session.
type login struct {
	condition caveat.Condition
	access    json.RawMessage // the access macaroon in JSON, as the bakery writes it
}

// stock is a homeserver made of the bakery's parts. It fetches the service's key from
// the service's URL.
type stock struct {
	named  string
	key    *bakery.KeyPair
	url    string // of the service
	bakery *bakery.Bakery
}

// access is the only operation of a stock homeserver.
var access = bakery.Op{Entity: "account", Action: "use"}

func newStock(t *testing.T, name string) *stock {
	t.Helper()
	key, err := bakery.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &stock{named: name, key: key}
}

// open sets the URL of the service.
func (s *stock) open(url string) {
	locator := httpbakery.NewThirdPartyLocator(nil, nil)
	locator.AllowInsecure()
	s.url = url
	s.bakery = bakery.New(bakery.BakeryParams{
		Location: s.named,
		Key:      s.key,
		Locator:  locator,
		Checker:  checkers.New(nil),
	})
}

func (s *stock) name() string { return s.named }

func (s *stock) login(t *testing.T, user string, version caveat.Version, mode caveat.Mode) *login {
	t.Helper()
	id := caveat.NewSessionID()
	return s.loginAs(t, version, caveat.Condition{
		Session: id, User: user, Device: id.String(), Minted: time.Now().UnixMilli(), Mode: mode,
	})
}

func (s *stock) loginAs(t *testing.T, version caveat.Version, c caveat.Condition) *login {
	t.Helper()
	m, err := s.mint(t.Context(), bakery.Version(version), c)
	if err != nil {
		t.Fatal(err)
	}
	return newLogin(t, c, m)
}

// mint returns an access macaroon. The caveat has the version of the macaroon.
func (s *stock) mint(ctx context.Context, version bakery.Version, c caveat.Condition) (*bakery.Macaroon, error) {
	condition, err := c.Encode()
	if err != nil {
		return nil, err
	}
	return s.bakery.Oven.NewMacaroon(ctx, version, []checkers.Caveat{{Location: s.url, Condition: condition}}, access)
}

func newLogin(t *testing.T, c caveat.Condition, m *bakery.Macaroon) *login {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &login{condition: c, access: data}
}

// clock is a clock that stands still.
type clock time.Time

func (c clock) Now() time.Time { return time.Time(c) }

func (s *stock) check(_ *login, macaroons macaroon.Slice, at time.Time) error {
	ctx := checkers.ContextWithClock(context.Background(), clock(at))
	_, err := s.bakery.Checker.Auth(macaroons).Allow(ctx, access)
	return err
}

// ours is a homeserver built on package homeserver.
type ours struct {
	keyPair caveat.KeyPair
	key     homeserver.Key
	config  homeserver.Config
	minting *homeserver.Homeserver
}

func newOurs(t *testing.T) *ours {
	t.Helper()
	keyPair := caveat.GenerateKey()
	key := homeserver.NewKey()
	return &ours{keyPair: keyPair, key: key}
}

func (o *ours) open(t *testing.T, url string, service caveat.PublicKey) {
	t.Helper()
	o.config = homeserver.Config{
		Name: "ours", Keys: homeserver.Keys{o.key}, KeyPair: o.keyPair, Discharger: service, Location: url,
	}
	var err error
	if o.minting, err = homeserver.New(o.config); err != nil {
		t.Fatal(err)
	}
}

func (o *ours) name() string { return o.config.Name }

func (o *ours) login(t *testing.T, user string, version caveat.Version, mode caveat.Mode) *login {
	t.Helper()
	minted, err := o.minting.Mint(homeserver.MintParams{User: user, Device: rand.Text(), Mode: mode, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	m, err := bakery.NewLegacyMacaroon(minted.Macaroon)
	if err != nil {
		t.Fatal(err)
	}
	return newLogin(t, minted.Condition, m)
}

func (o *ours) check(l *login, macaroons macaroon.Slice, at time.Time) error {
	config := o.config
	config = config.WithClock(func() time.Time { return at })
	h, err := homeserver.New(config)
	if err != nil {
		return err
	}
	bundle, err := bundle.Encode(macaroons)
	if err != nil {
		return err
	}
	identity, err := h.Verify(context.Background(), bundle, homeserver.Request{})
	if err != nil {
		return err
	}
	if identity.User != l.condition.User || identity.Session != l.condition.Session {
		return fmt.Errorf("bundle is of %s, session %s", identity.User, identity.Session)
	}
	return nil
}

// discharged parses the bundle of a client's library: a list of macaroons in JSON.
func discharged(data json.RawMessage) (macaroon.Slice, error) {
	var s macaroon.Slice
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if len(s) != 2 {
		return nil, fmt.Errorf("%d macaroons, want an access macaroon and its discharge", len(s))
	}
	return s, nil
}

// expiry returns the time-before of a discharge.
func expiry(s macaroon.Slice) (time.Time, error) {
	t, ok := checkers.MacaroonsExpiryTime(checkers.New(nil).Namespace(), s[1:])
	if !ok {
		return time.Time{}, errors.New("the discharge does not expire")
	}
	return t, nil
}
