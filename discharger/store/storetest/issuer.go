package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// An Issuer is a service in several processes, which share a store's data and
// nothing else, and the homeserver that logs its users in.
type Issuer struct {
	T        testing.TB
	Services []*discharger.Service
	Keys, hs caveat.KeyPair
	refresh  discharger.RefreshKey
}

// IssuerHomeserver is the name of the homeserver of an Issuer.
const IssuerHomeserver = "hs.example.org"

// PatientLimits take a reply for lost, however late the request is repeated: a
// failover takes as long as it takes.
var PatientLimits = session.Limits{Grace: time.Hour}

// NewIssuer makes a service over each store.
func NewIssuer(t testing.TB, stores ...store.Store) *Issuer {
	t.Helper()
	is := &Issuer{T: t}
	var err error
	is.Keys = caveat.GenerateKey()
	is.hs = caveat.GenerateKey()
	if is.refresh, err = discharger.NewRefreshKey(nil); err != nil {
		t.Fatal(err)
	}
	for _, st := range stores {
		is.Serve(st, PatientLimits)
	}
	return is
}

// Serve adds a service over a store.
func (is *Issuer) Serve(st store.Store, l session.Limits) {
	is.T.Helper()
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{is.Keys}, Homeservers: []caveat.Homeserver{{Name: IssuerHomeserver, Key: is.hs.Public}},
	})
	if err != nil {
		is.T.Fatal(err)
	}
	s, err := discharger.New(discharger.Config{
		Opener: opener, Store: st, RefreshKeys: []discharger.RefreshKey{is.refresh}, Limits: l,
	})
	if err != nil {
		is.T.Fatal(err)
	}
	is.Services = append(is.Services, s)
}

// Any returns one of the services: there is no sticky routing.
func (is *Issuer) Any() *discharger.Service { return is.Services[rand.IntN(len(is.Services))] }

// A Device is one session of one user, with the refresh token that it got
// last. One goroutine uses it at a time.
type Device struct {
	*Issuer
	User    store.UserKey
	Session caveat.SessionID
	Minted  time.Time
	caveat  []byte
	token   []byte
	Epoch   uint64
	calls   int
}

var deviceAddr = netip.MustParseAddr("203.0.113.7")

// Login mints a session in mode rotate on a device of its own. It is activated
// by the first refresh.
func (is *Issuer) Login(user string) *Device { return is.LoginMode(user, caveat.ModeRotate) }

// LoginMode logs a user in with a session of some mode.
func (is *Issuer) LoginMode(user string, mode caveat.Mode) *Device {
	is.T.Helper()
	id := caveat.NewSessionID()
	minted := time.Now()
	cond := caveat.Condition{Session: id, User: user, Device: id.String(), Minted: minted.UnixMilli(), Mode: mode}
	text, err := cond.Encode()
	if err != nil {
		is.T.Fatal(err)
	}
	sealed, err := caveat.Seal(caveat.SealParams{
		Version: caveat.V2, Homeserver: is.hs, Discharger: is.Keys.Public,
		RootKey: []byte("0123456789abcdef0123456789abcdef"), Condition: text,
	})
	if err != nil {
		is.T.Fatal(err)
	}
	return &Device{
		Issuer: is, User: store.UserKey{Homeserver: IssuerHomeserver, User: user}, Session: id, Minted: minted, caveat: sealed,
	}
}

// Request returns the next request of the device.
func (d *Device) Request(id string) *discharger.Request {
	return &discharger.Request{CaveatID: d.caveat, RefreshToken: d.token, RequestID: id, Addr: deviceAddr, Client: "test"}
}

// newRequestID names one refresh, for all of its attempts.
func (d *Device) newRequestID() string {
	d.calls++
	return fmt.Sprintf("%s-%d", d.Session, d.calls)
}

// attempt sends one request, and keeps the token of the grant.
func (d *Device) attempt(ctx context.Context, s *discharger.Service, id string) error {
	g, err := s.Discharge(ctx, d.Request(id))
	if err == nil {
		d.token, d.Epoch = g.RefreshToken, g.Epoch
	}
	return err
}

// decided is an answer that a client acts on; anything else it tries again.
func decided(err error) bool {
	var refusal *discharger.Refusal
	return err == nil || errors.As(err, &refusal)
}

// Insist repeats an attempt until it is decided, each time at any of the
// services, as a client without a reply does.
func (is *Issuer) Insist(ctx context.Context, attempt func(context.Context, *discharger.Service) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, time.Minute)
		err := attempt(once, is.Any())
		cancel()
		if decided(err) || ctx.Err() != nil {
			return err
		}
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

// Refresh refreshes until it is decided.
func (d *Device) Refresh(ctx context.Context) error {
	id := d.newRequestID()
	return d.Insist(ctx, func(ctx context.Context, s *discharger.Service) error { return d.attempt(ctx, s, id) })
}

// Logout logs out until it is decided.
func (d *Device) Logout(ctx context.Context) error {
	return d.Insist(ctx, func(ctx context.Context, s *discharger.Service) error {
		return s.Logout(ctx, d.Request(""), discharger.ScopeSession)
	})
}

// LogoutOthers ends every session of the device's user but its own.
func (d *Device) LogoutOthers(ctx context.Context) error {
	return d.Insist(ctx, func(ctx context.Context, s *discharger.Service) error {
		_, err := s.RevokeUser(ctx, d.User, discharger.Order{Except: d.Session})
		return err
	})
}
