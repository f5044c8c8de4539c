//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
)

// verification is a bundle to be verified by a foreign library with the root key of
// its access macaroon, as in a homeserver in another language.
type verification struct {
	name   string
	want   bool
	slice  macaroon.Slice
	bundle string // standard form
	key    []byte // root key
	at     time.Time
}

// rootKey derives the root key of an access macaroon from the master key, as an
// implementation in another language would.
func (o *ours) rootKey(t *testing.T, m *macaroon.Macaroon) []byte {
	t.Helper()
	master, err := base64.StdEncoding.DecodeString(o.key.Encode())
	if err != nil {
		t.Fatal(err)
	}
	h := hmac.New(sha256.New, master)
	h.Write([]byte("discharger/homeserver access macaroon root key v1\x00"))
	h.Write(m.Id())
	return h.Sum(nil)
}

// verifications returns valid bundles, and several invalid ones of each.
func verifications(t *testing.T, w *world) []verification {
	t.Helper()
	c, err := client.New(client.Config{URL: w.service.url})
	if err != nil {
		t.Fatal(err)
	}
	var all []verification
	for version := caveat.V1; version <= caveat.V3; version++ {
		for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate} {
			f := flow{w.ours, version, mode}
			var grants [2]client.Grant
			for n := range grants {
				a, err := client.ParseAccess(w.ours.login(t, f.user("verify"), version, mode).access)
				if err != nil {
					t.Fatal(err)
				}
				if grants[n], err = c.Discharge(t.Context(), client.Request{Access: a}); err != nil {
					t.Fatal(err)
				}
			}
			all = append(all, variations(t, w, f.String(), grants[0], grants[1])...)
		}
	}
	return all
}

func variations(t *testing.T, w *world, name string, g, other client.Grant) []verification {
	t.Helper()
	good := g.Macaroons()
	forged := good[1].Clone()
	forged.Bind(bytes.Repeat([]byte{1}, 32))
	wrongKey := w.ours.rootKey(t, other.Access)
	all := []verification{
		{name: "good", want: true, slice: good},
		{name: "expired", slice: good, at: g.Expires.Add(time.Hour)},
		{name: "discharge missing", slice: good[:1]},
		{name: "discharge not bound", slice: macaroon.Slice{g.Access, g.Discharge}},
		{name: "discharge bound twice", slice: macaroon.Slice{g.Access, forged}},
		{name: "discharge of another", slice: macaroon.Slice{g.Access, other.Macaroons()[1]}},
		{name: "other root key", slice: good, key: wrongKey},
	}
	for i := range all {
		v := &all[i]
		v.name = name + "/" + v.name
		if v.at.IsZero() {
			v.at = time.Now()
		}
		if v.key == nil {
			v.key = w.ours.rootKey(t, g.Access)
		}
		var err error
		if v.bundle, err = bundle.EncodeStandard(v.slice); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// testVerify verifies bundles with libraries in three other languages.
func testVerify(t *testing.T, w *world) {
	all := verifications(t, w)
	t.Run("pymacaroons", func(t *testing.T) {
		judged(t, all, w.kit.python(t, "verify.py", verifyTask(all)))
	})
	t.Run("javascript", func(t *testing.T) {
		judged(t, all, w.kit.node(t, "verify.cjs", verifyTask(all)))
	})
	t.Run("libmacaroons", func(t *testing.T) {
		// verify.c checks no times: it returns the conditions.
		timeless := slices.DeleteFunc(slices.Clone(all), func(v verification) bool { return strings.HasSuffix(v.name, "/expired") })
		var steps []step
		for _, v := range timeless {
			steps = append(steps, w.kit.libmacaroons(t, v))
		}
		judged(t, timeless, steps)
	})
}

// verifyTask writes the bundles for a script.
func verifyTask(all []verification) any {
	type bundle struct {
		Bundle  string `json:"bundle"`
		RootKey string `json:"root_key"` // hexadecimal
		Now     int64  `json:"now"`      // Unix ms
	}
	var out []bundle
	for _, v := range all {
		out = append(out, bundle{v.bundle, hex.EncodeToString(v.key), v.at.UnixMilli()})
	}
	return out
}

// judged checks the verdicts of a verifier: it accepts the valid bundles and returns
// all of their conditions, and refuses the others.
func judged(t *testing.T, all []verification, steps []step) {
	t.Helper()
	if len(steps) != len(all) {
		t.Fatalf("%d verdicts on %d bundles", len(steps), len(all))
	}
	for i, v := range all {
		s := steps[i]
		if s.OK != v.want {
			t.Errorf("%s: accepted is %t, want %t: %+v", v.name, s.OK, v.want, s)
			continue
		}
		if !s.OK {
			continue
		}
		var conditions []string
		for _, c := range v.slice[1].Caveats() {
			conditions = append(conditions, string(c.Id))
		}
		if !slices.Equal(s.Conditions, conditions) {
			t.Errorf("%s: conditions %q, want %q", v.name, s.Conditions, conditions)
		}
	}
}

// libmacaroons verifies with the library in C. It reads V1 only.
func (k *kit) libmacaroons(t *testing.T, v verification) step {
	t.Helper()
	args := []string{hex.EncodeToString(v.key)}
	for _, m := range v.slice {
		args = append(args, base64.RawURLEncoding.EncodeToString(packets(m)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), scriptTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, k.verifyC, args...).Output()
	if err != nil {
		t.Fatalf("%s: %v", v.name, err)
	}
	var s step
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%s: %q: %v", v.name, out, err)
	}
	return s
}

// packets encodes a macaroon in the V1 binary format. The library for Go does so only
// for macaroons whose ids are text, which the format does not require.
func packets(m *macaroon.Macaroon) []byte {
	var out []byte
	packet := func(field string, data []byte) {
		out = fmt.Appendf(out, "%04x%s %s\n", 4+len(field)+1+len(data)+1, field, data)
	}
	packet("location", []byte(m.Location()))
	packet("identifier", m.Id())
	for _, c := range m.Caveats() {
		packet("cid", c.Id)
		if len(c.VerificationId) > 0 {
			packet("vid", c.VerificationId)
			packet("cl", []byte(c.Location))
		}
	}
	packet("signature", m.Signature())
	return out
}
