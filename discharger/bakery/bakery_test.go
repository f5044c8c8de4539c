package bakery_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"
	"gopkg.in/errgo.v1"
	"gopkg.in/macaroon.v2"

	sessionbakery "github.com/discharger/discharger/discharger/bakery"
	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// rotating is a stand-in for the service: it discharges with the code of the bakery and
// requires the latest token.
type rotating struct {
	key      *bakery.KeyPair
	lifetime time.Duration
	epoch    int
	over     bool
}

func (s *rotating) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", wire.ContentType)
	var token string
	if s.epoch > 0 {
		token = s.token(s.epoch)
	}
	if s.over || r.URL.Path != wire.PathDischarge || r.FormValue(wire.ParamToken64) != token {
		s.over = true
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(wire.ErrorResponse{
			Code: wire.CodePermissionDenied, Message: "no", Info: &wire.RefusalInfo{Reason: wire.ReasonSessionEnded, Ended: true, SoftLogout: new(bool)},
		})
		return
	}
	id, _ := wire.DecodeBase64(r.FormValue(wire.ParamID64))
	p := bakery.DischargeParams{Id: id, Key: s.key, Checker: s}
	if external := r.FormValue(wire.ParamCaveat64); external != "" {
		p.Caveat, _ = wire.DecodeBase64(external)
	}
	m, err := bakery.Discharge(r.Context(), p)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	data, _ := m.MarshalJSON()
	s.epoch++
	_ = json.NewEncoder(w).Encode(wire.DischargeResponse{Macaroon: data, RefreshToken: s.token(s.epoch), ExpiresIn: s.lifetime.Milliseconds()})
}

func (s *rotating) CheckThirdPartyCaveat(context.Context, *bakery.ThirdPartyCaveatInfo) ([]checkers.Caveat, error) {
	return []checkers.Caveat{checkers.TimeBeforeCaveat(time.Now().Add(s.lifetime))}, nil
}

func (s *rotating) token(epoch int) string {
	m, _ := macaroon.New([]byte("k"), fmt.Append(nil, epoch), "", macaroon.V2)
	text, _ := bundle.Encode(macaroon.Slice{m})
	return text
}

// login gives the bakery's idea of an access macaroon for the service at
// location, which speaks the given version, and perhaps for others.
func login(t *testing.T, s *rotating, location string, version bakery.Version, others ...string) *bakery.Macaroon {
	t.Helper()
	locator := bakery.NewThirdPartyStore()
	for _, l := range append([]string{location}, others...) {
		locator.AddInfo(l, bakery.ThirdPartyInfo{PublicKey: s.key.Public, Version: version})
	}
	ns := checkers.New(nil).Namespace()
	m, err := bakery.NewMacaroon([]byte("root key"), []byte("id"), "here", version, ns)
	if err != nil {
		t.Fatal(err)
	}
	key := bakery.MustGenerateKey()
	for _, l := range append([]string{location}, others...) {
		if err := m.AddCaveat(context.Background(), checkers.Caveat{Location: l, Condition: "session {}"}, key, locator); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func newSession(t *testing.T, location string, m *bakery.Macaroon, save func(context.Context, client.RefreshToken) error) *client.Session {
	t.Helper()
	c, err := client.New(client.Config{URL: location})
	if err != nil {
		t.Fatal(err)
	}
	access, err := sessionbakery.Access(m)
	if err != nil {
		t.Fatal(err)
	}
	session, err := c.NewSession(client.SessionConfig{Access: access, Save: save})
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func TestStockBakerySlices(t *testing.T) {
	t.Parallel()
	for _, version := range []bakery.Version{bakery.Version1, bakery.Version2, bakery.Version3} {
		t.Run(fmt.Sprintf("V%d", version), func(t *testing.T) {
			t.Parallel()
			svc := &rotating{key: bakery.MustGenerateKey(), lifetime: 5 * time.Minute}
			server := httptest.NewServer(svc)
			defer server.Close()
			m := login(t, svc, server.URL, version)
			var saved []client.RefreshToken
			session := newSession(t, server.URL, m, func(_ context.Context, token client.RefreshToken) error {
				saved = append(saved, token)
				return nil
			})
			acquire := sessionbakery.AcquireDischarge(session, httpbakery.NewClient().AcquireDischarge)
			ctx, held := context.Background(), bakery.Slice{m}
			for round := range 3 {
				var err error
				// After the first round everything but the access macaroon has run out.
				held, err = held.Purge(time.Now().Add(time.Duration(round)*time.Hour)).DischargeAll(ctx, acquire, nil)
				if err != nil {
					t.Fatal(err)
				}
				bound := held.Bind()
				if _, err := bound[0].VerifySignature([]byte("root key"), bound[1:]); err != nil || len(bound) != 2 {
					t.Fatalf("%d macaroons: %v", len(bound), err)
				}
				if err := session.Refresh(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if svc.epoch != 4 || len(saved) != 4 || string(saved[3]) != svc.token(4) {
				t.Errorf("%d refreshes, %d tokens saved", svc.epoch, len(saved))
			}
			bound, err := bakery.DischargeAll(ctx, m, acquire)
			if err != nil || len(bound) != 2 {
				t.Errorf("bakery.DischargeAll: %v", err)
			}
			svc.over = true
			_ = session.Refresh(ctx)
			_, err = bakery.DischargeAll(ctx, m, acquire)
			var refused *client.RefusedError
			if !errors.As(errgo.Cause(err), &refused) || refused.Reason != wire.ReasonSessionEnded {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

func TestOtherCaveatsGoElsewhere(t *testing.T) {
	t.Parallel()
	svc := &rotating{key: bakery.MustGenerateKey(), lifetime: 5 * time.Minute}
	server := httptest.NewServer(svc)
	defer server.Close()
	m := login(t, svc, server.URL, bakery.Version2, "https://b.example", "https://c.example")
	session := newSession(t, server.URL, m, nil)
	var asked []string
	next := func(ctx context.Context, cav macaroon.Caveat, _ []byte) (*bakery.Macaroon, error) {
		asked = append(asked, cav.Location)
		return bakery.Discharge(ctx, bakery.DischargeParams{Id: cav.Id, Key: svc.key, Checker: svc})
	}
	bound, err := bakery.DischargeAll(context.Background(), m, sessionbakery.AcquireDischarge(session, next))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bound[0].VerifySignature([]byte("root key"), bound[1:]); err != nil || svc.epoch != 1 {
		t.Errorf("%d discharges of the session: %v", svc.epoch, err)
	}
	if want := []string{"https://b.example", "https://c.example"}; !slices.Equal(asked, want) {
		t.Errorf("acquired from %q, want %q", asked, want)
	}
	if _, err := bakery.DischargeAll(context.Background(), m, sessionbakery.AcquireDischarge(session, nil)); err == nil || !strings.Contains(err.Error(), "b.example") {
		t.Errorf("without a next function: %v", err)
	}
}

// The stock client calls no interactor and drops the refresh token, as the package
// comment describes.
func TestStockClientAlone(t *testing.T) {
	t.Parallel()
	svc := &rotating{key: bakery.MustGenerateKey(), lifetime: 5 * time.Minute}
	server := httptest.NewServer(svc)
	defer server.Close()
	m := login(t, svc, server.URL, bakery.Version2)
	client := httpbakery.NewClient()
	client.AddInteractor(interactor{t})
	if _, err := client.DischargeAll(context.Background(), m); err != nil {
		t.Fatal(err) // activation needs no token
	}
	_, err := client.DischargeAll(context.Background(), m)
	if !httpbakery.IsDischargeError(errgo.Cause(err)) || !svc.over {
		t.Errorf("refreshed without a token: %v", err)
	}
}

type interactor struct{ t *testing.T }

func (interactor) Kind() string { return wire.TokenKindRefresh }

func (i interactor) Interact(context.Context, *httpbakery.Client, string, *httpbakery.Error) (*httpbakery.DischargeToken, error) {
	i.t.Error("the interactor is called")
	return nil, errors.New("no")
}

func TestAccessOfNothing(t *testing.T) {
	t.Parallel()
	if _, err := sessionbakery.Access(nil); err == nil {
		t.Error("nil is an access macaroon")
	}
}
