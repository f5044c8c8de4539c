package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

func TestParseAccess(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	a := svc.mint(t, caveat.V2)
	plain, err := a.Macaroon.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	v3 := svc.mint(t, caveat.V3)
	inner, err := v3.Macaroon.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	wrapped := fmt.Appendf(nil, `{"m":%s,"v":3,"cdata":{"AwA":%q},"ns":"std:"}`, inner, wire.EncodeBase64(v3.External["\x03\x00"]))
	old, err := macaroon.New([]byte("k"), []byte("i"), "", macaroon.V1)
	if err != nil {
		t.Fatal(err)
	}
	v1, err := old.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		text     []byte
		want     *macaroon.Macaroon
		external map[string][]byte
	}{
		{"text", []byte(encodeBundleT(t, macaroon.Slice{a.Macaroon})), a.Macaroon, nil},
		{"text in a file", []byte(encodeBundleT(t, macaroon.Slice{a.Macaroon}) + "\n"), a.Macaroon, nil},
		{"bundle", []byte(encodeBundleT(t, macaroon.Slice{a.Macaroon, old})), a.Macaroon, nil},
		{"JSON", plain, a.Macaroon, nil},
		{"JSON, version 1", v1, old, nil},
		{"JSON of the bakery", wrapped, v3.Macaroon, v3.External},
	} {
		got, err := ParseAccess(tc.text)
		if err != nil || !got.Macaroon.Equal(tc.want) || len(got.External) != len(tc.external) {
			t.Errorf("%s: got %v, %v", tc.name, got, err)
			continue
		}
		for id, sealed := range tc.external {
			if !bytes.Equal(got.External[id], sealed) {
				t.Errorf("%s: external caveat %x differs", tc.name, id)
			}
		}
	}
	for _, bad := range []string{
		"", "{", "{}", "null", `"AgIBaQ"`, `{"m":null}`, `{"m":{},"v":3}`, `{"m":"x","v":3}`, `{"m":[],"v":3}`,
		string(bytes.Replace(wrapped, []byte(`"v":3`), []byte(`"v":2`), 1)),
		string(bytes.Replace(wrapped, []byte(`"AwA"`), []byte(`"A?A"`), 1)),
		string(bytes.Replace(wrapped, []byte(`"AwA":"`), []byte(`"AwA":"??`), 1)),
		"AQ", "AgI", strings.Repeat("A", maxAccess+1),
	} {
		t.Run(bad, func(t *testing.T) {
			if got, err := ParseAccess([]byte(bad)); err == nil || got.Macaroon != nil {
				t.Errorf("%.40q: parsed", bad)
			}
		})
	}
}

func TestCaveatForTheService(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	other := svc.mint(t, caveat.V2)
	if err := other.Macaroon.AddThirdPartyCaveat([]byte("k"), []byte("i"), "https://elsewhere.example"); err != nil {
		t.Fatal(err)
	}
	twice := svc.mint(t, caveat.V2)
	if err := twice.Macaroon.AddThirdPartyCaveat([]byte("k"), []byte("i"), testLocation+"/"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name            string
		access          Access
		found, complete bool
	}{
		{"usual", svc.mint(t, caveat.V2), true, true},
		{"none", Access{}, false, false},
		{"with one for another service", other, true, false},
		{"two for the service", twice, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, _, err := tc.access.caveatFor(testLocation); (err == nil) != tc.found {
				t.Errorf("%s: %v", tc.name, err)
			}
			s, err := svc.client(t, nil).NewSession(SessionConfig{Access: tc.access})
			if (err == nil) != tc.found {
				t.Errorf("%s: session: %v", tc.name, err)
			}
			if err != nil {
				return
			}
			if _, err := s.Bundle(context.Background()); (err == nil) != tc.complete {
				t.Errorf("%s: bundle: %v", tc.name, err)
			}
			g, err := s.Grant(context.Background())
			if err != nil || !s.Discharges(g.Discharge.Id(), nil) || s.Discharges(g.Discharge.Id(), []byte("x")) || s.Discharges([]byte("i"), nil) {
				t.Errorf("%s: grant: %v", tc.name, err)
			}
		})
	}
}

// FuzzParseAccess: no input panics, and a macaroon that parses can be encoded.
func FuzzParseAccess(f *testing.F) {
	svc := newService(f)
	a := svc.mint(f, caveat.V2)
	plain, err := a.Macaroon.MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add(fmt.Appendf(nil, `{"m":%s,"v":3,"cdata":{"AwA":"AwA"},"ns":"std:"}`, plain))
	f.Add([]byte(encodeBundleT(f, macaroon.Slice{a.Macaroon})))
	f.Add([]byte(`{"caveats":[{"cid":"x","vid":"AAAA","cl":"y"}],"identifier":"i","signature":"00"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseAccess(data)
		if err != nil {
			if a.Macaroon != nil || a.External != nil {
				t.Fatal("something beside an error")
			}
			return
		}
		if _, err := json.Marshal(a.Macaroon); err != nil {
			t.Fatal(err)
		}
		_, _, _ = a.caveatFor(testLocation)
	})
}
