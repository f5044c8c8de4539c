package server_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

const strangersKey = "canary-api-key-of-b.example"

func withStranger(c *server.Config) {
	c.APIKeys["b.example"] = [][sha256.Size]byte{sha256.Sum256([]byte(strangersKey))}
}

func (w *world) api(key string) *client.Client {
	w.t.Helper()
	c, err := client.New(client.Config{URL: w.http.URL, APIKey: secret.Bytes(key), Timeout: patience, Patience: -1})
	testkit.NoError(w.t, err)
	return c
}

// session is a client with a session of its own.
type login struct {
	homeserver.Minted
	*client.Session
}

func (w *world) session(user, device string, mode caveat.Mode) login {
	w.t.Helper()
	m, err := w.hs.Mint(homeserver.MintParams{User: user, Device: device, Mode: mode})
	testkit.NoError(w.t, err)
	s, err := w.api("").NewSession(client.SessionConfig{Access: client.Access{Macaroon: m.Macaroon}})
	testkit.NoError(w.t, err)
	testkit.NoError(w.t, s.Refresh(context.Background()))
	return login{m, s}
}

func (s login) alive(t *testing.T, want bool) {
	t.Helper()
	err := s.Refresh(context.Background())
	if want && err != nil || !want && !errors.Is(err, client.ErrRefused) {
		t.Errorf("alive %v, but refresh returns %v", want, err)
	}
}

func TestHomeserverOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	ctx := context.Background()
	ours, stranger := w.api(apiKey), w.api(strangersKey)
	const user = "@al/ice 100%:a.example" // all of it has to be escaped
	old := w.session(user, "PHO/NE", caveat.ModeOpen)
	phone := w.session(user, "PHO/NE", caveat.ModeRotate)
	laptop, desk, bob := w.session(user, "LAPTOP", caveat.ModeOpen), w.session(user, "DESK", caveat.ModeOpen), w.session("@bob:a.example", "B", caveat.ModeOpen)
	old.ended(t, wire.ReasonReplaced, true)

	list, err := ours.Sessions(ctx, user)
	testkit.NoError(t, err)
	if len(list) != 3 {
		t.Fatalf("listed %+v", list)
	}
	for _, s := range list {
		if s.LastIP != netip.MustParseAddr("127.0.0.1") || s.FirstClient == "" || time.Since(s.Created) > time.Minute {
			t.Errorf("listed %+v", s)
		}
	}
	if list, err := stranger.Sessions(ctx, user); err != nil || len(list) != 0 {
		t.Errorf("another homeserver sees %+v, %v", list, err)
	}
	answered(t, wire.Revoked{Marked: true})(stranger.RevokeUser(ctx, user, wire.RevokeOptions{}))
	answered(t, wire.Revoked{Marked: true})(stranger.RevokeSession(ctx, user, laptop.Minted.Session, wire.RevokeOptions{}))
	testkit.NoError(t, stranger.RevokeHomeserver(ctx, wire.RevokeOptions{}))
	laptop.alive(t, true)

	answered(t, wire.Revoked{Ended: 1, Known: true})(ours.RevokeSession(ctx, user, laptop.Minted.Session, wire.RevokeOptions{Soft: true}))
	answered(t, wire.Revoked{Known: true})(ours.RevokeSession(ctx, user, laptop.Minted.Session, wire.RevokeOptions{})) // repeating is no error
	laptop.ended(t, wire.ReasonSessionEnded, true)
	answered(t, wire.Revoked{Known: true, Marked: true})(ours.RevokeDevice(ctx, user, "PHO/NE", wire.RevokeOptions{Except: phone.Minted.Session}))
	answered(t, wire.Revoked{Marked: true})(ours.RevokeDevice(ctx, user, "pho/ne", wire.RevokeOptions{}))
	phone.alive(t, true)
	answered(t, wire.Revoked{Ended: 1, Known: true, Marked: true})(ours.RevokeUser(ctx, user, wire.RevokeOptions{ExceptDevice: "PHO/NE"}))
	desk.ended(t, wire.ReasonSessionEnded, false)
	phone.alive(t, true)
	bob.alive(t, true)
	answered(t, wire.Revoked{Ended: 1, Known: true, Marked: true})(ours.RevokeUser(ctx, user, wire.RevokeOptions{}))
	phone.alive(t, false)
	bob.alive(t, true)
	testkit.NoError(t, ours.RevokeHomeserver(ctx, wire.RevokeOptions{Soft: true}))
	bob.ended(t, wire.ReasonSessionEnded, true)

	ends, err := ours.EndedSessions(ctx, user)
	testkit.NoError(t, err)
	kinds := make(map[caveat.SessionID]string)
	for _, e := range ends {
		kinds[e.ID] = e.Device + " " + e.Kind + " " + e.Reason
	}
	for id, want := range map[caveat.SessionID]string{
		old.Minted.Session:    "PHO/NE soft replaced",
		laptop.Minted.Session: "LAPTOP soft revoked",
		desk.Minted.Session:   "DESK hard revoked",
		phone.Minted.Session:  "PHO/NE hard revoked",
	} {
		if kinds[id] != want {
			t.Errorf("%s is remembered as %q, want %q", id, kinds[id], want)
		}
	}
}

// ended checks how a session is refused.
func (s login) ended(t *testing.T, reason string, soft bool) {
	t.Helper()
	var refused *client.RefusedError
	if err := s.Refresh(context.Background()); !errors.As(err, &refused) || !refused.Ended || refused.Reason != reason || refused.SoftLogout != soft {
		t.Errorf("want %s, soft %v, got %+v", reason, soft, err)
	}
}

// answered checks the answer to a revocation.
func answered(t *testing.T, want wire.Revoked) func(wire.Revoked, error) {
	return func(got wire.Revoked, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

// TestRevokeMany makes several revocations in one request: each has its own
// result, and sessions of other homeservers are unknown.
func TestRevokeMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	ctx := context.Background()
	const user = "@alice:a.example"
	phone, laptop, desk := w.session(user, "PHONE", caveat.ModeRotate), w.session(user, "LAPTOP", caveat.ModeOpen), w.session(user, "DESK", caveat.ModeOpen)
	bob := w.session("@bob:a.example", "B", caveat.ModeOpen)
	bare := w.session("@bob:a.example", "", caveat.ModeOpen)
	entries := []wire.RevokeEntry{
		{User: user, Session: desk.Minted.Session, RevokeOptions: wire.RevokeOptions{Epoch: 1}},
		{User: user, Device: "LAPTOP", RevokeOptions: wire.RevokeOptions{Age: time.Hour}}, // before it was activated
		{User: user, Device: "LAPTOP", RevokeOptions: wire.RevokeOptions{Soft: true}},
		{User: "@bob:a.example", RevokeOptions: wire.RevokeOptions{Devices: true}},
		{User: "@unknown:a.example"},
	}
	got, err := w.api(strangersKey).RevokeBatch(ctx, entries)
	testkit.NoError(t, err)
	for i, r := range got {
		if r.Error != nil || r.Ended != 0 || r.Known {
			t.Errorf("another homeserver's entry %d: %+v", i, r)
		}
	}
	phone.alive(t, true)
	got, err = w.api(apiKey).RevokeBatch(ctx, entries)
	testkit.NoError(t, err)
	want := []wire.Revoked{{Ended: 1, Known: true}, {Known: true, Marked: true}, {Ended: 1, Known: true, Marked: true}, {Ended: 1, Known: true, Marked: true}, {Marked: true}}
	for i, r := range got {
		if r.Error != nil || r.Revoked != want[i] {
			t.Errorf("entry %d: %+v, want %+v", i, r, want[i])
		}
	}
	desk.ended(t, wire.ReasonSessionEnded, false)
	laptop.ended(t, wire.ReasonSessionEnded, true)
	bob.ended(t, wire.ReasonSessionEnded, false)
	bare.alive(t, true)
	phone.alive(t, true)

	// One that is refused does not keep the others from being made.
	phone.alive(t, true)
	phone.alive(t, true)
	got, err = w.api(apiKey).RevokeBatch(ctx, []wire.RevokeEntry{
		{User: user, Session: phone.Minted.Session, RevokeOptions: wire.RevokeOptions{Epoch: 1}}, {User: "@bob:a.example"},
	})
	testkit.NoError(t, err)
	if e := got[0].Error; e == nil || e.Code != wire.CodePermissionDenied || e.Info == nil || e.Info.Reason != wire.ReasonTokenSuperseded || e.Info.Ended {
		t.Errorf("an old epoch: %+v", got[0])
	}
	if got[1].Error != nil || got[1].Ended != 1 {
		t.Errorf("the other: %+v", got[1])
	}
	w.store.set(errors.New("down"), false)
	got, err = w.api(apiKey).RevokeBatch(ctx, []wire.RevokeEntry{{User: user}})
	testkit.NoError(t, err)
	if e := got[0].Error; e == nil || e.Code != wire.CodeUnavailable {
		t.Errorf("without a store: %+v", got[0])
	}
}

// TestBadRevocations: members that do not go together are errors that say so,
// and then nothing is done.
func TestBadRevocations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.session("@alice:a.example", "PHONE", caveat.ModeOpen)
	id := s.Minted.Session.String()
	const users, all = "/v1/users/@alice:a.example/", "/v1/sessions"
	type bad struct{ method, path, body, want string }
	cases := map[string]bad{
		"epoch of a user":          {http.MethodDelete, users + "sessions?epoch=1", "", "epoch goes with one session only"},
		"epoch of a device":        {http.MethodDelete, users + "devices/PHONE?epoch=1", "", "epoch goes with one session only"},
		"epoch of all":             {http.MethodDelete, all + "?epoch=1", "", "epoch do not go with all sessions"},
		"except of all":            {http.MethodDelete, all + "?except=" + id, "", "age, except, except_device, devices and epoch do not go"},
		"except of a session":      {http.MethodDelete, users + "sessions/" + id + "?except=" + id, "", "do not go with one session"},
		"devices of a session":     {http.MethodDelete, users + "sessions/" + id + "?devices=true", "", "do not go with one session"},
		"except_device, a device":  {http.MethodDelete, users + "devices/PHONE?except_device=PHONE", "", "do not go with a device"},
		"two exceptions":           {http.MethodDelete, users + "sessions?except_device=PHONE&except=" + id, "", "at most one of except, except_device"},
		"empty except":             {http.MethodDelete, users + "sessions?except=", "", "parameter except is not one session"},
		"empty except_device":      {http.MethodDelete, users + "sessions?except_device=", "", "parameter except_device is empty"},
		"kind":                     {http.MethodDelete, users + "sessions?kind=Soft", "", "parameter kind is neither hard nor soft"},
		"age":                      {http.MethodDelete, users + "sessions?age=-1", "", "parameter age is not a number"},
		"devices":                  {http.MethodDelete, users + "sessions?devices=1", "", "parameter devices is neither true nor false"},
		"ended":                    {http.MethodGet, users + "sessions?ended=1", "", "parameter ended is neither true nor false"},
		"batch: nothing":           {http.MethodPost, wire.PathRevoke, `{}`, "has no entries"},
		"batch: no JSON":           {http.MethodPost, wire.PathRevoke, `revoke`, "is not the JSON"},
		"batch: unknown member":    {http.MethodPost, wire.PathRevoke, `{"revoke":[],"x":1}`, "is not the JSON"},
		"batch: unknown in entry":  {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"a"},{"user":"a","devise":"b"}]}`, `revoke[1]: member \"/devise\" is unknown`},
		"batch: twice in entry":    {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"a","user":"b"}]}`, "is not the JSON"},
		"batch: no user":           {http.MethodPost, wire.PathRevoke, `{"revoke":[{"device":"PHONE"}]}`, "revoke[0]: user is empty"},
		"batch: empty device":      {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"@alice:a.example","device":""}]}`, `revoke[0]: member \"device\" is null or empty`},
		"batch: zero session":      {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"@alice:a.example","session":"AAAAAAAAAAAAAAAAAAAAAA"}]}`, "is all zeros"},
		"batch: bad session":       {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"@alice:a.example","session":"x"}]}`, `member \"/session\" is unknown or of the wrong type`},
		"batch: session, device":   {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"a","device":"d","session":"` + id + `"}]}`, "at most one of session, device"},
		"batch: a good one before": {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"@alice:a.example"},{"user":"a","kind":"x"}]}`, "revoke[1]: kind is neither"},
		"batch: null session":      {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"a","session":null}]}`, `revoke[0]: member \"session\" is null`},
		"batch: null device":       {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"a","device":null}]}`, `revoke[0]: member \"device\" is null`},
		"batch: empty kind":        {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"a","kind":""}]}`, `revoke[0]: member \"kind\" is null or empty`},
		"batch: long device":       {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"a","device":"` + strings.Repeat("d", 513) + `"}]}`, "revoke[0]: device or except_device is longer"},
		"empty kind":               {http.MethodDelete, users + "sessions?kind=", "", "parameter kind is empty"},
		"misspelt exception":       {http.MethodDelete, users + "sessions?exceptt=1", "", "parameter list has one that is not known here"},
		"empty age":                {http.MethodDelete, users + "sessions?age=", "", "parameter age is empty"},
		"age of all":               {http.MethodDelete, all + "?age=1000", "", "age, except, except_device, devices and epoch do not go"},
		"batch: age":               {http.MethodPost, wire.PathRevoke, `{"revoke":[{"user":"a","age":1e12}]}`, "revoke[0]: "},
		"batch: too many":          {http.MethodPost, wire.PathRevoke, `{"revoke":[` + strings.Repeat(`{"user":"a"},`, 100) + `{"user":"a"}]}`, "more than 100"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			a := w.do(w.request(c.method, c.path, c.body, "Authorization", "Bearer "+apiKey))
			if a.status != http.StatusBadRequest || !strings.Contains(string(a.body), c.want) {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	s.alive(t, true)
}

// TestMarks shows revocation marks and lifts none that is not in the future.
func TestMarks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	ctx := context.Background()
	ours := w.api(apiKey)
	m, err := ours.Marks(ctx, "@alice:a.example")
	testkit.NoError(t, err)
	if !m.User.IsZero() || !m.Homeserver.IsZero() || time.Since(m.Now).Abs() > patience {
		t.Errorf("before: %+v", m)
	}
	answered(t, wire.Revoked{Marked: true})(ours.RevokeUser(ctx, "@alice:a.example", wire.RevokeOptions{Age: time.Minute}))
	testkit.NoError(t, ours.RevokeHomeserver(ctx, wire.RevokeOptions{}))
	m, err = ours.Marks(ctx, "@alice:a.example")
	testkit.NoError(t, err)
	if m.Now.Sub(m.User) < time.Minute || m.Homeserver.IsZero() || m.Homeserver.After(m.Now) {
		t.Errorf("after: %+v", m)
	}
	if m, err := ours.Marks(ctx, ""); err != nil || !m.User.IsZero() || m.Homeserver.IsZero() {
		t.Errorf("of the homeserver: %+v, %v", m, err)
	}
	if m, err := w.api(strangersKey).Marks(ctx, "@alice:a.example"); err != nil || !m.User.IsZero() || !m.Homeserver.IsZero() {
		t.Errorf("another homeserver's: %+v, %v", m, err)
	}
	if n, err := ours.LiftMarks(ctx, "@alice:a.example"); err != nil || n != 0 {
		t.Errorf("lifted %d, %v", n, err)
	}
}

func TestSeenOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	ctx := context.Background()
	s := w.session("@alice:a.example", "PHONE", caveat.ModeRotate)
	report := []wire.Seen{
		{User: "@unknown:a.example", Session: caveat.SessionID{1}, Epoch: 1},
		{User: "@alice:a.example", Session: s.Minted.Session, Epoch: 1},
	}
	again := func() error { // like a thief of the access macaroon
		_, err := w.api("").Discharge(ctx, client.Request{Access: client.Access{Macaroon: s.Macaroon}})
		return err
	}
	testkit.NoError(t, w.api(strangersKey).Seen(ctx, report))
	testkit.NoError(t, again())
	testkit.NoError(t, w.api(apiKey).Seen(ctx, report))
	if err := again(); !errors.Is(err, client.ErrRefused) {
		t.Errorf("got %v", err)
	}
	for range 2 {
		s.alive(t, true)
	}
}

func TestHomeserverPathsNeedAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, r := range []struct{ method, path string }{
		{http.MethodGet, "/v1/users/a/sessions"}, {http.MethodDelete, "/v1/users/a/sessions"},
		{http.MethodDelete, "/v1/users/a/sessions/AAAAAAAAAAAAAAAAAAAAAQ"}, {http.MethodDelete, "/v1/users/a/devices/x"},
		{http.MethodDelete, "/v1/sessions"}, {http.MethodPost, "/v1/seen"}, {http.MethodPost, "/v1/revoke"},
		{http.MethodGet, "/v1/marks"}, {http.MethodDelete, "/v1/marks"},
	} {
		t.Run(r.method+" "+r.path, func(t *testing.T) {
			for _, header := range [][]string{nil, {"Authorization", "Bearer wrong"}} {
				a := w.do(w.request(r.method, r.path, "", header...))
				if e := a.error(t); a.status != http.StatusUnauthorized || e.Code != wire.CodeUnauthorized {
					t.Errorf("got %d %s", a.status, a.body)
				}
			}
		})
	}
}

// Another process may have read the registration of an API key already: one in the
// form of those that are made here is undecided.
func TestUnknownAPIKeyIsUndecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.mint(caveat.ModeOpen)
	for name, a := range map[string]answer{
		"list":      w.do(w.request(http.MethodGet, "/v1/users/a/sessions", "", "Authorization", "Bearer "+strings.Repeat("A", 43))),
		"discharge": w.do(w.request(http.MethodPost, wire.PathDischarge+"?id64="+b64(id), "", "Authorization", "Bearer "+strings.Repeat("A", 43))),
	} {
		if e := a.error(t); a.status != http.StatusServiceUnavailable || e.Code != wire.CodeUnavailable || !strings.Contains(e.Message, "API key") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	for name, key := range map[string]string{
		"short": strings.Repeat("A", 42), "long": strings.Repeat("A", 44), "unused bits": strings.Repeat("A", 42) + "B", "other": strings.Repeat("*", 43),
	} {
		if a := w.do(w.request(http.MethodGet, "/v1/users/a/sessions", "", "Authorization", "Bearer "+key)); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
}

// Caveats to and from keys that are not in the ring are undecided, and the answer
// names the missing key.
func TestUnknownCaveatKeysAreUndecided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.post(wire.PathDischarge, form("id64", b64(newWorld(t).mint(caveat.ModeOpen))))
	if e := a.error(t); a.status != http.StatusServiceUnavailable || e.Code != wire.CodeUnavailable || !strings.Contains(e.Message, "addressed to a key") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestAuthorizationScheme: the word before the key may have any case, and nothing
// else may stand there.
func TestAuthorizationScheme(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for value, want := range map[string]int{
		"Bearer " + apiKey: 200, "bearer " + apiKey: 200, "BEARER " + apiKey: 200,
		"Bearer  " + apiKey: 401, "Basic " + apiKey: 401, apiKey: 401, "Bearer " + apiKey + " x": 401, "Bearer": 401, "Bearer ": 401,
	} {
		if a := w.do(w.request(http.MethodGet, "/v1/users/a/sessions", "", "Authorization", value)); a.status != want {
			t.Errorf("%q: %d %s", value, a.status, a.body)
		}
	}
}

func TestBadHomeserverOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.session("@alice:a.example", "PHONE", caveat.ModeOpen)
	for name, r := range map[string]*http.Request{
		"session":        w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions/nonsense", ""),
		"except":         w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions?except=x", ""),
		"except twice":   w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions?except="+s.Minted.Session.String()+"&except="+s.Minted.Session.String(), ""),
		"long user":      w.request(http.MethodDelete, "/v1/users/"+strings.Repeat("a", 256)+"/sessions", ""),
		"long device":    w.request(http.MethodDelete, "/v1/users/a/devices/"+strings.Repeat("d", 513), ""),
		"user no UTF-8":  w.request(http.MethodDelete, "/v1/users/%ff/sessions", ""),
		"no device":      w.request(http.MethodDelete, "/v1/users/a/devices/%ff", ""),
		"zero session":   w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions/AAAAAAAAAAAAAAAAAAAAAA", ""),
		"no JSON":        w.request(http.MethodPost, "/v1/seen", "seen=1"),
		"unknown key":    w.request(http.MethodPost, "/v1/seen", `{"seen":[],"more":1}`),
		"duplicate key":  w.request(http.MethodPost, "/v1/seen", `{"seen":[],"seen":[]}`),
		"trailing":       w.request(http.MethodPost, "/v1/seen", `{"seen":[]} {}`),
		"no session":     w.request(http.MethodPost, "/v1/seen", `{"seen":[{"user":"a","epoch":1}]}`),
		"negative epoch": w.request(http.MethodPost, "/v1/seen", `{"seen":[{"user":"a","session":"AAAAAAAAAAAAAAAAAAAAAQ","epoch":-1}]}`),
		"too many":       w.request(http.MethodPost, "/v1/seen", `{"seen":[`+strings.Repeat(`{"user":"a","session":"AAAAAAAAAAAAAAAAAAAAAQ","epoch":1},`, 1000)+`{"user":"a","session":"AAAAAAAAAAAAAAAAAAAAAQ","epoch":1}]}`),
	} {
		r.Header.Set("Authorization", "Bearer "+apiKey)
		if a := w.do(r); a.status != http.StatusBadRequest || a.error(t).Code != wire.CodeBadRequest {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := w.early("/v1/seen", `{"seen":["`+strings.Repeat("x", 1<<20)+`"]}`, "Authorization", "Bearer "+apiKey)
	if a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("huge: %d", a.status)
	}
	s.alive(t, true)
}

// revoked checks that a revocation was made.
func revoked(t testing.TB) func(wire.Revoked, error) {
	return func(_ wire.Revoked, err error) {
		t.Helper()
		testkit.NoError(t, err)
	}
}

// A homeserver can find out whether a session could be begun, without beginning
// one.
func TestServiceReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	ours := w.api(apiKey)
	testkit.NoError(t, ours.Ready(ctx))
	if err := w.api("wrong").Ready(ctx); !errors.Is(err, client.ErrBadRequest) {
		t.Errorf("with another key: %v", err)
	}
	w.store.set(errors.New("broken"), false)
	if err := ours.Ready(ctx); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("with a store that fails: %v", err)
	}
	w.store.set(nil, false)
	testkit.NoError(t, ours.Ready(ctx))
	w.server.Drain()
	if err := ours.Ready(ctx); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("while draining: %v", err)
	}
}
