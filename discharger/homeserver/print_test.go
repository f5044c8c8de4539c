package homeserver

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// No way of printing shows a key, not even of a value that contains one.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	key := w.cfg.Keys[0]
	private := w.cfg.KeyPair.Private
	var out bytes.Buffer
	things := []any{key, &key, w.cfg.Keys, w.cfg, &w.cfg, w.Homeserver, *w.Homeserver, []any{key}, map[string]Key{"k": key}}
	for _, thing := range things {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%c", "%U", "%t"} {
			fmt.Fprintf(&out, verb+"\n", thing)
		}
	}
	for _, thing := range []any{key, w.cfg.Keys, []any{key}} {
		data, err := json.Marshal(thing)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(data)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", thing)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", thing)
	}
	text := strings.ToLower(out.String())
	for _, secret := range [][]byte{key.Key[:], private.Key[:]} {
		for _, form := range []string{
			string(secret), hex.EncodeToString(secret), wire.EncodeBase64(secret), fmt.Sprint(secret), fmt.Sprintf("%#v", secret),
			strings.Trim(fmt.Sprint(secret[:8]), "[]"), hex.EncodeToString(secret[:6]),
		} {
			if strings.Contains(text, strings.ToLower(form)) {
				t.Fatalf("a secret shows as %.20s", form)
			}
		}
	}
	if !strings.Contains(text, "redacted") {
		t.Error("nothing was printed")
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	access := w.mint(t, alice(caveat.ModeRotate))
	d := w.discharge(t, access, usual(caveat.ModeRotate)...)
	access = narrowed(t, access, "client-ip 192.0.2.7", "x \x1b[2J")
	text := encode(t, access, bound(access, d))
	in, err := Inspect(text)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := parseIdentifier(access.Id())
	want := fmt.Sprintf(`bundle       %d characters, compact form, not verified
user         @alice:example.org
device       ABCDEFGHIJ
session      %s
mode         rotate
minted       2026-11-24T10:00:00Z
master key   %x
access macaroon
  to be discharged by https://refresh.example.org (%d bytes, sealed)
  client-ip 192.0.2.7
  "x \x1b[2J"
discharge
  time-before 2026-11-24T10:05:00Z
  declared epoch 3
`, len(text), id.session, id.key, len(access.Caveats()[0].Id))
	if got := in.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	bare, err := Inspect(encode(t, access))
	if err != nil || !strings.HasSuffix(bare.String(), "no discharge\n") || !strings.Contains(bare.String(), "standard form") {
		t.Errorf("bare access macaroon: %v\n%s", err, bare)
	}
	foreign, err := Inspect(encode(t, d))
	if err != nil || foreign.Ours || !strings.Contains(foreign.String(), "another kind") {
		t.Errorf("another macaroon: %v\n%s", err, foreign)
	}
	if _, err := Inspect("not a bundle"); err == nil {
		t.Error("anything is inspected")
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  Error
		want string
	}{
		{Error{Kind: ErrRevoked}, "revoked"},
		{Error{Kind: ErrExpired, Part: PartDischarge, At: testNow}, "discharge: expired at 2026-11-24T10:00:00Z"},
		{Error{Kind: ErrUnknownCaveat, Part: PartAccess, Condition: "a\nb"}, `access macaroon: unknown caveat "a\nb"`},
		{Error{Kind: ErrMalformed, Err: fmt.Errorf("cut short")}, "malformed bundle: cut short"},
	} {
		if got := tc.err.Error(); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
	long := Error{Kind: ErrNotMet, Condition: strings.Repeat("x", 5000)}
	if n := len(long.Error()); n > 200 {
		t.Errorf("an error of %d bytes", n)
	}
}
