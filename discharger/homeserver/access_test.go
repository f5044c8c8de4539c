package homeserver

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

// A payload comes back as it went in, and a session id that was drawn before
// is the macaroon's.
func TestPayloadAndSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	session := caveat.NewSessionID()
	p := alice(caveat.ModeHeld)
	p.Session, p.Payload = session, []byte("sealed \x00 by the homeserver")
	m, err := w.Mint(p)
	if err != nil || m.Session != session {
		t.Fatalf("minted session %v: %v", m.Session, err)
	}
	d := w.discharge(t, m.Macaroon, usual(caveat.ModeHeld)...)
	id := w.accepted(t, encode(t, m.Macaroon, bound(m.Macaroon, d)), someClient)
	if id.Session != session || id.Payload != string(p.Payload) {
		t.Fatalf("identity %+v", id)
	}
	p.Payload = make([]byte, MaxPayload+1)
	if _, err := w.Mint(p); err == nil || !strings.Contains(err.Error(), "payload") {
		t.Fatalf("minted with a payload that is too long: %v", err)
	}
}

// VerifyAccess returns the same as Verify about the access macaroon, with a
// discharge or without one.
func TestVerifyAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	ctx := context.Background()
	access := w.mint(t, alice(caveat.ModeHeld))
	alone := encode(t, access)
	expired := w.discharge(t, access, rawmacaroon.TimeBefore(testNow.Add(-time.Minute)))
	for _, text := range []string{alone, encode(t, access, bound(access, expired)), w.bundle(t, caveat.ModeRotate)} {
		id, err := w.VerifyAccess(ctx, text, someClient)
		if err != nil || id.User != "@alice:example.org" || id.Epoch != 0 || !id.Expires.IsZero() {
			t.Fatalf("identity %+v: %v", id, err)
		}
	}
	until := testNow.Add(time.Hour)
	if id, err := w.VerifyAccess(ctx, encode(t, narrowed(t, access, rawmacaroon.TimeBefore(until))), someClient); err != nil || !id.Expires.Equal(until) {
		t.Fatalf("identity %+v: %v", id, err)
	}
	for _, c := range []struct {
		condition string
		want      error
	}{
		{rawmacaroon.TimeBefore(testNow), ErrExpired},
		{"client-ip 198.51.100.1", ErrNotMet},
		{"declared epoch 3", ErrUnknownCaveat},
		{"moon-phase full", ErrUnknownCaveat},
	} {
		_, err := w.VerifyAccess(ctx, encode(t, narrowed(t, access, c.condition)), someClient)
		wantKind(t, err, c.want)
	}
	// Locations are not signed, by any macaroon; all else is.
	data := mustDecode(t, alone)
	locations := []string{w.cfg.Name, w.cfg.Location}
	for at := range data {
		b := bytes.Clone(data)
		b[at] ^= 1
		text := wire.EncodeBase64(b)
		for _, l := range locations {
			if i := bytes.Index(data, []byte(l)); at >= i && at < i+len(l) {
				text = ""
			}
		}
		if id, err := w.VerifyAccess(ctx, text, someClient); err == nil || id != (Identity{}) {
			t.Fatalf("byte %d changed: %+v, %v", at, id, err)
		}
	}
}
