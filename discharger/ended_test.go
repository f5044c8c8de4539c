package discharger_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/testkit"
)

// TestEventsNameTheSession tests that every event has user, device, kind and reason of
// the end.
func TestEventsNameTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	byClient, byOrder, byDevice, early := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen), w.login(caveat.ModeOpen),
		w.login(caveat.ModeOpen, device(""))
	for _, l := range []*login{byClient, byOrder, byDevice} {
		l.must()
	}
	user := byClient.user()
	testkit.NoError(t, byClient.logout(discharger.ScopeSession))
	testkit.NoError(t, byOrder.revokeBy(discharger.Order{Soft: true}))
	testkit.NoError(t, w.revokeDevice(user, byDevice.cond.Device, discharger.Order{Soft: true}))
	testkit.NoError(t, early.revokeBy(discharger.Order{}))
	testkit.NoError(t, w.revokeUser(user, discharger.Order{Soft: true}))
	testkit.NoError(t, w.service.RevokeHomeserver(context.Background(), "a.example", discharger.Order{Soft: true}))
	w.published(0,
		byClient.ended(revocation.CauseLogout, false),
		byOrder.ended(revocation.CauseRevoked, true),
		byDevice.ended(revocation.CauseRevoked, true),
		revocation.Event{User: user.User, Device: byDevice.cond.Device, Soft: true, Reason: revocation.CauseRevoked},
		early.ended(revocation.CauseRevoked, false),
		revocation.Event{User: user.User, Soft: true, Reason: revocation.CauseRevoked},
		revocation.Event{All: true, Soft: true, Reason: revocation.CauseRevoked},
	)
}

// TestParseEvent reads events of earlier versions, and unknown members.
func TestParseEvent(t *testing.T) {
	t.Parallel()
	id, err := caveat.ParseSessionID("AAAAAAAAAAAAAAAAAAAAAQ")
	testkit.NoError(t, err)
	at := time.UnixMilli(1).UTC()
	for name, tt := range map[string]struct {
		data string
		want revocation.Event
	}{
		"a member of a later version": {
			`{"v":1,"x":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","kind":"soft","at":1,"until":2,"reason":"sold"}`,
			revocation.Event{Session: id, Soft: true, At: at, Reason: "sold"},
		},
		"of an earlier version": {
			`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","at":1,"until":2,"reason":"logout"}`,
			revocation.Event{Session: id, At: at, Reason: "logout"},
		},
		"of an earlier version, with the owner": {
			`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","at":1,"until":2,"reason":"logout"}` + "\n" + `{"user":"@a:b","device":"D"}`,
			revocation.Event{Session: id, User: "@a:b", Device: "D", At: at, Reason: "logout"},
		},
		"a device": {
			`{"v":1,"user":"@a:b","device":"D","before":2,"kind":"hard","at":1,"until":2,"reason":"revoked"}`,
			revocation.Event{User: "@a:b", Device: "D", At: at, Reason: "revoked"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := revocation.ParseEvent([]byte(tt.data))
			tt.want.Until = time.UnixMilli(2).UTC()
			if tt.want.Session == (caveat.SessionID{}) {
				tt.want.Before = time.UnixMilli(2).UTC()
			}
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestParseEventRefuses(t *testing.T) {
	t.Parallel()
	const id = `"session":"AAAAAAAAAAAAAAAAAAAAAQ"`
	const rest = `,"at":1,"until":2,"reason":"logout"}`
	for name, tt := range map[string]struct{ data, want string }{
		"empty":           {"", "malformed JSON"},
		"unknown device":  {`{"v":1,"all":true,"device":"D"` + rest, "exactly one"},
		"version":         {`{"v":2,` + id + rest, "version 2"},
		"no subject":      {`{"v":1` + rest, "exactly one"},
		"two":             {`{"v":1,"all":true,` + id + rest, "exactly one"},
		"zero session":    {`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAA"` + rest, "all zeros"},
		"except":          {`{"v":1,"all":true,"except":"AAAAAAAAAAAAAAAAAAAAAQ"` + rest, "except"},
		"no time":         {`{"v":1,` + id + `,"until":2,"reason":"logout"}`, "time"},
		"no reason":       {`{"v":1,` + id + `,"at":1,"until":2}`, "reason"},
		"second line":     {`{"v":1,` + id + rest + "\n{}", "second line"},
		"no second line":  {`{"v":1,` + id + rest + "\n", "second line"},
		"owner of a user": {`{"v":1,"user":"a","before":2` + rest + "\n" + `{"user":"a"}`, "second line"},
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := revocation.ParseEvent([]byte(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) || e != (revocation.Event{}) {
				t.Errorf("%+v, %v; want %s", e, err, tt.want)
			}
		})
	}
}

// FuzzReadEvent tests that an event has one subject, and that it is zero on error.
func FuzzReadEvent(f *testing.F) {
	f.Add([]byte(`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","at":1,"until":2,"reason":"logout"}` + "\n" + `{"user":"@a:b","device":"D"}`))
	f.Add([]byte(`{"v":1,"user":"@a:b","except":"AAAAAAAAAAAAAAAAAAAAAQ","before":2,"at":1,"until":2,"reason":"revoked"}`))
	f.Add([]byte(`{"v":1,"all":true,"before":2,"at":1,"until":2,"reason":"revoked"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := revocation.ParseEvent(data)
		if err != nil {
			if e != (revocation.Event{}) {
				t.Fatal("an error and an event")
			}
			return
		}
		session := e.Session != caveat.SessionID{}
		if !session && e.User == "" && !e.All || session && e.All || e.All && e.User != "" || e.Device != "" && e.User == "" && !session {
			t.Fatalf("no subject, or two: %+v", e)
		}
	})
}
