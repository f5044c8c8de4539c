package gateway

import (
	"testing"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// FuzzAccessToken checks that each access token has one text and that a failure returns
// no token.
func FuzzAccessToken(f *testing.F) {
	w := newWorld(f)
	f.Add(w.login(false).text("access_token"))
	f.Add(w.login(true).text("access_token"))
	f.Add("dga_")
	f.Fuzz(func(t *testing.T, valid string) {
		b, err := token.ParseAccess(valid)
		if err != nil {
			if b != nil {
				t.Fatal("failure returned a token")
			}
			return
		}
		s, err := b.Macaroons()
		if err != nil {
			t.Fatal(err)
		}
		encode := bundle.EncodeStandard
		if token.KindOf(valid) == token.Rotate {
			encode = bundle.Encode
		}
		if text, err := encode(s); err != nil || valid[:token.PrefixSize]+text != valid {
			t.Fatalf("%s is written %s: %v", valid, text, err)
		}
	})
}

// FuzzRefreshToken checks the same for refresh tokens, and seals their contents again.
func FuzzRefreshToken(f *testing.F) {
	w := newWorld(f)
	sealed := w.login(true).text("refresh_token")
	f.Add(sealed, []byte("x"))
	f.Add("dgr_", []byte{})
	s := w.gateway.sealer
	f.Fuzz(func(t *testing.T, text string, plain []byte) {
		for _, valid := range []string{text, token.PrefixRefresh + wire.EncodeBase64(s.SealRefresh(plain))} {
			r, err := s.DecodeRefresh(valid)
			if err != nil {
				if r.Access != nil || r.Token != "" {
					t.Fatal("failure returned a token")
				}
				continue
			}
			// A macaroon has several encodings, but the sealed one was made here; only
			// the text has to be the one accepted form.
			again, err := s.EncodeRefresh(r)
			if err != nil {
				t.Fatal(err)
			}
			if valid == text && again != text {
				t.Fatalf("%s is written %s", text, again)
			}
		}
	})
}

// FuzzAttenuate checks that a narrowed token is well formed and has the added
// conditions.
func FuzzAttenuate(f *testing.F) {
	w := newWorld(f)
	text := w.login(false).text("access_token")
	f.Add("read-only")
	f.Add("room !x:y")
	f.Add("client-ip 192.0.2.0/24")
	f.Fuzz(func(t *testing.T, condition string) {
		narrow, err := token.Attenuate(text, condition)
		if err != nil {
			return
		}
		in, err := homeserver.Inspect(narrow[token.PrefixSize:])
		if err != nil || len(in.Access) != 2 || in.Access[1].Condition != condition {
			t.Fatalf("%+v: %v", in, err)
		}
	})
}
