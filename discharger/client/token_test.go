package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

func TestAttenuate(t *testing.T) {
	t.Parallel()
	when := time.Date(2026, 11, 24, 11, 0, 0, 123_000_000, time.FixedZone("", 3600))
	token := RefreshToken(makeToken(3, 4))
	narrow, err := token.Attenuate(rawmacaroon.TimeBefore(when), rawmacaroon.ClientIP(netip.MustParsePrefix("192.0.2.99/24")), rawmacaroon.ClientIP(netip.MustParsePrefix("2001:db8::1/128")))
	if err != nil {
		t.Fatal(err)
	}
	data, err := wire.DecodeBase64(string(narrow))
	if err != nil {
		t.Fatal(err)
	}
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	got, err := m.VerifySignature([]byte("token key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"time-before 2026-11-24T10:00:00.123Z", "client-ip 192.0.2.0/24", "client-ip 2001:db8::1"}
	if !slices.Equal(got, want) {
		t.Errorf("conditions %q, want %q", got, want)
	}
	if string(token) != makeToken(3, 4) {
		t.Error("the token itself has changed")
	}
	for _, bad := range []string{"", "epoch 9", "time-before soon", "client-ip", "declared epoch 3"} {
		t.Run(bad, func(t *testing.T) {
			if got, err := token.Attenuate(bad); err == nil || got != "" {
				t.Errorf("attenuated with %q", bad)
			}
		})
	}
	long := narrow
	for err == nil {
		narrow = long
		long, err = long.Attenuate(rawmacaroon.TimeBefore(when), rawmacaroon.TimeBefore(when), rawmacaroon.TimeBefore(when))
	}
	if len(narrow) < MaxRefreshToken/2 && !strings.Contains(err.Error(), "caveats") {
		t.Errorf("attenuation ends at %d characters: %v", len(narrow), err)
	}
	for _, bad := range []RefreshToken{"", "?", "AQ", RefreshToken(encodeBundleT(t, testkit.Bundle(t, 1, ""))), token + "AA", RefreshToken(encodeBundleT(t, testkit.Bundle(t, 1, "")[:1]))} {
		t.Run(fmt.Sprintf("%.20q", string(bad)), func(t *testing.T) {
			if _, err := bad.Attenuate(); err == nil {
				t.Error("is taken for a token")
			}
			if _, err := ParseRefreshToken(string(bad)); err == nil {
				t.Error("is taken for a token")
			}
		})
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	for _, n := range []uint64{0, 1, 10, 1<<64 - 1} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			name, arg := rawmacaroon.CutCondition(rawmacaroon.Epoch(n))
			if got, ok := rawmacaroon.ParseEpoch(arg); !ok || got != n || name != rawmacaroon.CondDeclared {
				t.Errorf("%d: got %d, %v", n, got, ok)
			}
		})
	}
	for _, bad := range []string{"", "epoch", "epoch ", "epoch 01", "epoch +1", "epoch -1", "epoch 1 ", "epoch  1", "Epoch 1", "epoch 1_0", "epoch 0x1", "epoch 18446744073709551616", "user 1"} {
		t.Run(bad, func(t *testing.T) {
			if _, ok := rawmacaroon.ParseEpoch(bad); ok {
				t.Errorf("%q is taken for an epoch", bad)
			}
		})
	}
}

func TestClientIP(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ in, want string }{
		{"192.0.2.7/32", "192.0.2.7"}, {"192.0.2.7/24", "192.0.2.0/24"}, {"::ffff:192.0.2.7/128", "192.0.2.7"},
		{"::ffff:192.0.2.7/120", "192.0.2.0/24"}, {"2001:db8::7/32", "2001:db8::/32"}, {"2001:db8::7/128", "2001:db8::7"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got := rawmacaroon.ClientIP(netip.MustParsePrefix(tc.in))
			if got != "client-ip "+tc.want {
				t.Errorf("%s: %q", tc.in, got)
			}
			_, arg := rawmacaroon.CutCondition(got)
			p, err := rawmacaroon.ParseClientIP(arg)
			if err != nil || !rawmacaroon.MatchClientIP(p, netip.MustParsePrefix(tc.in).Addr()) {
				t.Errorf("%s does not hold for itself: %v", got, err)
			}
		})
	}
	if _, err := rawmacaroon.ParseClientIP(strings.TrimPrefix(rawmacaroon.ClientIP(netip.Prefix{}), "client-ip ")); err == nil {
		t.Error("no range at all becomes one")
	}
}

func TestTimeBeforeOfAnyTime(t *testing.T) {
	t.Parallel()
	for _, when := range []time.Time{{}, time.Unix(0, 1), time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)} {
		t.Run(when.String(), func(t *testing.T) {
			_, arg := rawmacaroon.CutCondition(rawmacaroon.TimeBefore(when))
			if got, err := rawmacaroon.ParseTimeBefore(arg); err != nil || !got.Equal(when) {
				t.Errorf("%v comes back as %v, %v", when, got, err)
			}
		})
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	token := RefreshToken(makeToken(3, 4))
	client := svc.client(t, func(c *Config) { c.APIKey = secret.Bytes("the API key") })
	session, err := client.NewSession(SessionConfig{Access: svc.mint(t, caveat.V2), Token: token})
	if err != nil {
		t.Fatal(err)
	}
	grant := Grant{Token: token, raw: json.RawMessage("the discharge")}
	response := wire.DischargeResponse{RefreshToken: string(token), Macaroon: json.RawMessage("the discharge")}
	var out bytes.Buffer
	for _, thing := range []any{token, &token, []any{token}, client, client.cfg, session, session.cfg, grant, &grant, response, Request{Token: token}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", thing)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "thing", thing)
	}
	for _, thing := range []any{token, []any{token}, grant, Request{Token: token}} {
		data, err := json.Marshal(thing)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "thing", thing)
	}
	for _, secret := range []string{string(token), "the API key", "the discharge"} {
		for _, form := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprint([]byte(secret))} {
			if strings.Contains(out.String(), form) {
				t.Errorf("a secret shows as %.20s", form)
			}
		}
	}
}

// FuzzConditions: a condition that parses is encoded as one that means the
// same.
func FuzzConditions(f *testing.F) {
	for _, s := range []string{"epoch 3", "2026-11-24T10:00:00.5Z", "192.0.2.7", "192.0.2.0/24", "::ffff:192.0.2.0/120", "2001:db8::/32", "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		if n, ok := rawmacaroon.ParseEpoch(arg); ok && rawmacaroon.Epoch(n) != rawmacaroon.CondDeclared+" "+arg {
			t.Errorf("%q is epoch %d", arg, n)
		}
		if when, err := rawmacaroon.ParseTimeBefore(arg); err == nil && when.Year() > 0 && when.Year() < 9999 {
			_, again := rawmacaroon.CutCondition(rawmacaroon.TimeBefore(when))
			if got, err := rawmacaroon.ParseTimeBefore(again); err != nil || !got.Equal(when) {
				t.Errorf("%q is %v, and again %v, %v", arg, when, got, err)
			}
		}
		if p, err := rawmacaroon.ParseClientIP(arg); err == nil {
			_, again := rawmacaroon.CutCondition(rawmacaroon.ClientIP(p))
			if got, err := rawmacaroon.ParseClientIP(again); err != nil || got.Masked() != p.Masked() || !rawmacaroon.MatchClientIP(p, p.Addr()) {
				t.Errorf("%q is %v, and again %v, %v", arg, p, got, err)
			}
		}
	})
}
