package store_test

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
)

// An issuer is a service in several processes, which share a store's data and
// nothing else, and the homeserver that logs its users in.
type issuer struct {
	t        testing.TB
	services []*discharger.Service
	keys, hs caveat.KeyPair
	refresh  discharger.RefreshKey
}

const issuerHomeserver = "hs.example.org"

// patientLimits take a reply for lost, however late the request is repeated: a
// failover takes as long as it takes.
var patientLimits = session.Limits{Grace: time.Hour}

// newIssuer makes a service over each store.
func newIssuer(t testing.TB, stores ...discharger.Store) *issuer {
	t.Helper()
	is := &issuer{t: t}
	var err error
	if is.keys, err = caveat.GenerateKey(nil); err != nil {
		t.Fatal(err)
	}
	if is.hs, err = caveat.GenerateKey(nil); err != nil {
		t.Fatal(err)
	}
	if is.refresh, err = discharger.NewRefreshKey(nil); err != nil {
		t.Fatal(err)
	}
	for _, st := range stores {
		is.serve(st, patientLimits)
	}
	return is
}

// serve adds a service over a store.
func (is *issuer) serve(st discharger.Store, l session.Limits) {
	is.t.Helper()
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{is.keys}, Homeservers: []caveat.Homeserver{{Name: issuerHomeserver, Key: is.hs.Public}},
	})
	if err != nil {
		is.t.Fatal(err)
	}
	s, err := discharger.New(discharger.Config{
		Opener: opener, Store: st, RefreshKeys: []discharger.RefreshKey{is.refresh}, Limits: l,
	})
	if err != nil {
		is.t.Fatal(err)
	}
	is.services = append(is.services, s)
}

// any returns one of the services: there is no sticky routing.
func (is *issuer) any() *discharger.Service { return is.services[rand.IntN(len(is.services))] }

// A device is one session of one user, with the refresh token that it got
// last. One goroutine uses it at a time.
type device struct {
	*issuer
	user    discharger.UserKey
	session caveat.SessionID
	minted  time.Time
	caveat  []byte
	token   []byte
	epoch   uint64
	calls   int
}

var deviceAddr = netip.MustParseAddr("203.0.113.7")

// login mints a session in mode rotate on a device of its own. It is activated
// by the first refresh.
func (is *issuer) login(user string) *device { return is.loginMode(user, caveat.ModeRotate) }

func (is *issuer) loginMode(user string, mode caveat.Mode) *device {
	is.t.Helper()
	id, err := caveat.NewSessionID(nil)
	if err != nil {
		is.t.Fatal(err)
	}
	minted := time.Now()
	cond := caveat.Condition{Session: id, User: user, Device: id.String(), Minted: minted.UnixMilli(), Mode: mode}
	text, err := cond.Encode()
	if err != nil {
		is.t.Fatal(err)
	}
	sealed, err := caveat.Seal(caveat.SealParams{
		Version: caveat.V2, Homeserver: is.hs, Discharger: is.keys.Public,
		RootKey: []byte("0123456789abcdef0123456789abcdef"), Condition: text,
	})
	if err != nil {
		is.t.Fatal(err)
	}
	return &device{
		issuer: is, user: discharger.UserKey{Homeserver: issuerHomeserver, User: user}, session: id, minted: minted, caveat: sealed,
	}
}

func (d *device) request(id string) *discharger.Request {
	return &discharger.Request{ID: d.caveat, RefreshToken: d.token, RequestID: id, Addr: deviceAddr, Client: "test"}
}

// newRequestID names one refresh, for all of its attempts.
func (d *device) newRequestID() string {
	d.calls++
	return fmt.Sprintf("%s-%d", d.session, d.calls)
}

// attempt asks once. A grant's token is the device's from then on.
func (d *device) attempt(ctx context.Context, s *discharger.Service, id string) error {
	g, err := s.Discharge(ctx, d.request(id))
	if err == nil {
		d.token, d.epoch = g.RefreshToken, g.Epoch
	}
	return err
}

// decided is an answer that a client acts on; anything else it tries again.
func decided(err error) bool {
	var refusal *discharger.Refusal
	return err == nil || errors.As(err, &refusal)
}

// insist repeats an attempt until it is decided, as a client does that has not
// been told anything, each time wherever it happens to get to.
func (is *issuer) insist(ctx context.Context, attempt func(context.Context, *discharger.Service) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, time.Minute)
		err := attempt(once, is.any())
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

func (d *device) refresh(ctx context.Context) error {
	id := d.newRequestID()
	return d.insist(ctx, func(ctx context.Context, s *discharger.Service) error { return d.attempt(ctx, s, id) })
}

func (d *device) logout(ctx context.Context) error {
	return d.insist(ctx, func(ctx context.Context, s *discharger.Service) error {
		return s.Logout(ctx, d.request(""), discharger.ScopeSession)
	})
}

// logoutOthers ends every session of the device's user but its own.
func (d *device) logoutOthers(ctx context.Context) error {
	return d.insist(ctx, func(ctx context.Context, s *discharger.Service) error {
		_, err := s.RevokeUser(ctx, d.user, discharger.Order{Except: d.session})
		return err
	})
}
