//go:build interop

package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// apiKey is the API key of the homeserver "ours".
const apiKey = "the API key of ours"

// world is a running service and the homeservers around it.
type world struct {
	kit     *kit
	service *service
	stock   *stock // registered, made of the bakery
	ours    *ours  // registered, made with package homeserver
	other   *stock // registered, for sessions that resemble those of others
	python  *stock // registered, for the key that a homeserver in Python uses
	unknown *stock // not registered
}

// newWorld starts a service on a store and registers the homeservers.
func newWorld(t *testing.T, k *kit, st store) *world {
	t.Helper()
	w := &world{
		kit:   k,
		stock: newStock(t, "stock"), ours: newOurs(t), other: newStock(t, "other"), python: newStock(t, "python"),
		unknown: newStock(t, "unknown"),
	}
	sum := sha256.Sum256([]byte(apiKey))
	config := "homeservers:\n"
	for _, s := range []*stock{w.stock, w.other, w.python} {
		config += fmt.Sprintf("  - {name: %s, public_key: %q}\n", s.named, s.key.Public.String())
	}
	config += fmt.Sprintf("  - {name: ours, public_key: %q, api_key_sha256: %s}\n", w.ours.keyPair.Public, hex.EncodeToString(sum[:]))
	w.service = startService(t, k.discharger, st, config)
	for _, s := range []*stock{w.stock, w.other, w.python, w.unknown} {
		s.open(w.service.url)
	}
	info, err := httpbakery.ThirdPartyInfoForLocation(t.Context(), http.DefaultClient, w.service.url)
	if err != nil {
		t.Fatal(err)
	}
	w.ours.open(t, w.service.url, caveat.PublicKey(info.PublicKey.Key))
	return w
}

// answer is an answer of the service over plain HTTP.
type answer struct {
	status      int
	contentType string
	header      http.Header
	body        string
}

func (a answer) String() string { return fmt.Sprintf("%d %s: %s", a.status, a.contentType, a.body) }

// refusal reads the body of an error.
func (a answer) refusal(t *testing.T) wire.ErrorResponse {
	t.Helper()
	var e wire.ErrorResponse
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	return e
}

// send makes a request without any library of macaroons.
func send(t *testing.T, req *http.Request) answer {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header, string(body)}
}

func (w *world) request(t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.service.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// post sends parameters in a form body.
func (w *world) post(t *testing.T, path string, params url.Values) answer {
	t.Helper()
	req := w.request(t, http.MethodPost, path, strings.NewReader(params.Encode()))
	req.Header.Set("Content-Type", wire.ContentTypeForm)
	return send(t, req)
}

// params are the parameters that name the login's caveat.
func (l *login) params(t *testing.T) url.Values {
	t.Helper()
	a, err := client.ParseAccess(l.access)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range a.Macaroon.Caveats() {
		if len(c.VerificationId) == 0 {
			continue
		}
		v := url.Values{wire.ParamID64: {wire.EncodeBase64(c.Id)}}
		if external := a.External[string(c.Id)]; external != nil {
			v.Set(wire.ParamCaveat64, wire.EncodeBase64(external))
		}
		return v
	}
	t.Fatal("the access macaroon has no third-party caveat")
	return nil
}

// macaroon reads the access macaroon as a bakery client does.
func (l *login) macaroon(t *testing.T) *bakery.Macaroon {
	t.Helper()
	m := new(bakery.Macaroon)
	if err := json.Unmarshal(l.access, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// withToken adds a refresh token to parameters; an empty one adds nothing.
func withToken(v url.Values, token string) url.Values {
	if token != "" {
		v.Set(wire.ParamToken64, token)
		v.Set(wire.ParamTokenKind, wire.TokenKindRefresh)
	}
	return v
}

// discharge gets a discharge and returns its answer.
func (w *world) discharge(t *testing.T, l *login, token string) wire.DischargeResponse {
	t.Helper()
	a := w.post(t, wire.PathDischarge, withToken(l.params(t), token))
	if a.status != http.StatusOK || a.contentType != wire.ContentType {
		t.Fatalf("discharge of %s: %s", l.condition.User, a)
	}
	var d wire.DischargeResponse
	if err := json.Unmarshal([]byte(a.body), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// refused checks that a discharge is refused with a reason.
func (w *world) refused(t *testing.T, l *login, token, reason string) {
	t.Helper()
	a := w.post(t, wire.PathDischarge, withToken(l.params(t), token))
	if a.status != http.StatusUnauthorized || a.contentType != wire.ContentType {
		t.Fatalf("discharge of %s: %s", l.condition.User, a)
	}
	e := a.refusal(t)
	if e.Code != wire.CodePermissionDenied || e.Info == nil || e.Info.Reason != reason || e.Message == "" {
		t.Errorf("discharge of %s: %s, want the reason %s", l.condition.User, a, reason)
	}
}

// stolen checks that a token which another party presents late ends the session,
// softly.
func (w *world) stolen(t *testing.T, l *login, token string) {
	t.Helper()
	req := w.request(t, http.MethodPost, wire.PathDischarge+"?"+withToken(l.params(t), token).Encode(), nil)
	req.Header.Set("User-Agent", "another party")
	a := send(t, req)
	e := a.refusal(t)
	if i := e.Info; a.status != http.StatusUnauthorized || i == nil || i.Reason != wire.ReasonTokenReused || !i.Ended || i.SoftLogout == nil || !*i.SoftLogout {
		t.Errorf("a copy from another party: %s", a)
	}
}

// loggedOut checks that a session is over, and that the answer to a caller without
// its refresh token does not show it.
func (w *world) loggedOut(t *testing.T, l *login, token string) {
	t.Helper()
	if l.condition.Mode != caveat.ModeRotate {
		w.refused(t, l, "", wire.ReasonSessionEnded)
		return
	}
	w.refused(t, l, "", wire.ReasonTokenRequired)
	if token != "" {
		w.refused(t, l, token, wire.ReasonSessionEnded)
	}
}

// bystanders are sessions that resemble the one under test, and must go on.
type bystanders []*login

func (w *world) bystanders(t *testing.T, i issuer, l *login) bystanders {
	t.Helper()
	twin := l.condition
	twin.Mode = caveat.ModeOpen
	b := bystanders{
		i.login(t, "@other:"+i.name(), caveat.V2, caveat.ModeOpen),
		i.login(t, l.condition.User, caveat.V2, caveat.ModeOpen),
		w.other.loginAs(t, caveat.V2, twin),
	}
	b.live(t, w)
	return b
}

// live checks that every one of them gets a discharge.
func (b bystanders) live(t *testing.T, w *world) {
	t.Helper()
	for _, l := range b {
		w.discharge(t, l, "")
	}
}

// user returns a name that no other test uses.
func (f flow) user(client string) string { return "@" + client + ":" + f.String() }

// accepted checks the bundles of a client over the life of a session: each is valid
// until its discharge expires and no longer, and in mode rotate each declares the
// next epoch.
func (f flow) accepted(t *testing.T, l *login, bundles []macaroon.Slice) {
	t.Helper()
	for n, bundle := range bundles {
		if err := f.issuer.check(l, bundle, time.Now()); err != nil {
			t.Errorf("bundle %d is refused: %v", n, err)
		}
		end, err := expiry(bundle)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.issuer.check(l, bundle, end.Add(-time.Millisecond)); err != nil {
			t.Errorf("bundle %d is refused before it expires: %v", n, err)
		}
		if err := f.issuer.check(l, bundle, end); err == nil {
			t.Errorf("bundle %d is accepted after it expired", n)
		}
		if err := f.issuer.check(l, bundle[:1], time.Now()); err == nil {
			t.Error("an access macaroon is accepted without its discharge")
		}
		want := ""
		if f.mode == caveat.ModeRotate {
			want = strconv.Itoa(n + 1)
		}
		if got := checkers.InferDeclared(nil, bundle)["epoch"]; got != want {
			t.Errorf("bundle %d declares epoch %q, want %q", n, got, want)
		}
	}
}

// played checks the steps of a script that ran the common sequence: a discharge, two
// refreshes, a logout, a refusal. It returns the last step.
func (f flow) played(t *testing.T, l *login, steps []step) step {
	t.Helper()
	want := []string{"discharged", "discharged", "discharged", "logged-out", "refused"}
	var bundles []macaroon.Slice
	for n, s := range steps {
		if n >= len(want) || s.Name != want[n] {
			t.Fatalf("step %d is %+v, of %v", n, s, want)
		}
		switch s.Name {
		case "discharged":
			bundle, err := discharged(s.Macaroons)
			if err != nil {
				t.Fatalf("step %d: %s: %v", n, s.Macaroons, err)
			}
			bundles = append(bundles, bundle)
		case "logged-out":
			if s.Status != http.StatusOK || s.ContentType != wire.ContentType || s.Body != "{}" {
				t.Errorf("logout: %+v", s)
			}
		}
	}
	if len(steps) != len(want) {
		t.Fatalf("%d steps, want %v", len(steps), want)
	}
	f.accepted(t, l, bundles)
	return steps[len(steps)-1]
}
