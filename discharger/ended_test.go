package discharger_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// TestEventsNameTheSession holds what every event says: whose session has ended,
// on which device, how and why.
func TestEventsNameTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	byClient, byOrder, byDevice, early := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen), w.login(caveat.ModeOpen),
		w.login(caveat.ModeOpen, device(""))
	for _, l := range []*login{byClient, byOrder, byDevice} {
		l.must()
	}
	user := byClient.user()
	mustDo(t, byClient.logout(discharger.ScopeSession))
	mustDo(t, byOrder.revokeBy(discharger.Order{Soft: true}))
	mustDo(t, w.revokeDevice(user, byDevice.cond.Device, discharger.Order{Soft: true}))
	mustDo(t, early.revokeBy(discharger.Order{}))
	mustDo(t, w.revokeUser(user, discharger.Order{Soft: true}))
	mustDo(t, w.service.RevokeHomeserver(context.Background(), "a.example", discharger.Order{Soft: true}))
	w.said(0,
		byClient.ended(revocation.CauseLogout, false),
		byOrder.ended(revocation.CauseRevoked, true),
		byDevice.ended(revocation.CauseRevoked, true),
		revocation.Ended{User: user.User, Device: byDevice.cond.Device, Soft: true, Reason: string(revocation.CauseRevoked)},
		early.ended(revocation.CauseRevoked, false),
		revocation.Ended{User: user.User, Soft: true, Reason: string(revocation.CauseRevoked)},
		revocation.Ended{All: true, Soft: true, Reason: string(revocation.CauseRevoked)},
	)
}

// TestReadEvent reads what earlier versions wrote, and members that it does not
// know.
func TestReadEvent(t *testing.T) {
	t.Parallel()
	id, err := caveat.ParseSessionID("AAAAAAAAAAAAAAAAAAAAAQ")
	mustDo(t, err)
	at := time.UnixMilli(1).UTC()
	for name, tt := range map[string]struct {
		data string
		want revocation.Ended
	}{
		"a member of a later version": {
			`{"v":1,"x":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","kind":"soft","at":1,"until":2,"reason":"sold"}`,
			revocation.Ended{Session: id, Soft: true, At: at, Reason: "sold"},
		},
		"of an earlier version": {
			`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","at":1,"until":2,"reason":"logout"}`,
			revocation.Ended{Session: id, At: at, Reason: "logout"},
		},
		"of an earlier version, with the owner": {
			`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","at":1,"until":2,"reason":"logout"}` + "\n" + `{"user":"@a:b","device":"D"}`,
			revocation.Ended{Session: id, User: "@a:b", Device: "D", At: at, Reason: "logout"},
		},
		"a device": {
			`{"v":1,"user":"@a:b","device":"D","before":2,"kind":"hard","at":1,"until":2,"reason":"revoked"}`,
			revocation.Ended{User: "@a:b", Device: "D", At: at, Reason: "revoked"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := revocation.ReadEvent([]byte(tt.data)); err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestReadEventRefuses(t *testing.T) {
	t.Parallel()
	const id = `"session":"AAAAAAAAAAAAAAAAAAAAAQ"`
	const rest = `,"at":1,"until":2,"reason":"logout"}`
	for name, tt := range map[string]struct{ data, want string }{
		"empty":           {"", "malformed JSON"},
		"unknown device":  {`{"v":1,"all":true,"device":"D"` + rest, "exactly one"},
		"version":         {`{"v":2,` + id + rest, "version 2"},
		"nobody":          {`{"v":1` + rest, "exactly one"},
		"two":             {`{"v":1,"all":true,` + id + rest, "exactly one"},
		"zero session":    {`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAA"` + rest, "exactly one"},
		"except":          {`{"v":1,"all":true,"except":"AAAAAAAAAAAAAAAAAAAAAQ"` + rest, "exactly one"},
		"no time":         {`{"v":1,` + id + `,"reason":"logout"}`, "time or reason"},
		"no reason":       {`{"v":1,` + id + `,"at":1}`, "time or reason"},
		"second line":     {`{"v":1,` + id + rest + "\n{}", "second line"},
		"no second line":  {`{"v":1,` + id + rest + "\n", "second line"},
		"owner of a user": {`{"v":1,"user":"a"` + rest + "\n" + `{"user":"a"}`, "second line"},
	} {
		t.Run(name, func(t *testing.T) {
			if e, err := revocation.ReadEvent([]byte(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) || e != (revocation.Ended{}) {
				t.Errorf("%+v, %v; want %s", e, err, tt.want)
			}
		})
	}
}

// What is read is about one thing, and what is refused is about nothing.
func FuzzReadEvent(f *testing.F) {
	f.Add([]byte(`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","at":1,"until":2,"reason":"logout"}` + "\n" + `{"user":"@a:b","device":"D"}`))
	f.Add([]byte(`{"v":1,"user":"@a:b","except":"AAAAAAAAAAAAAAAAAAAAAQ","before":2,"at":1,"until":2,"reason":"revoked"}`))
	f.Add([]byte(`{"v":1,"all":true,"before":2,"at":1,"until":2,"reason":"revoked"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := revocation.ReadEvent(data)
		if err != nil {
			if e != (revocation.Ended{}) {
				t.Fatal("an error and an event")
			}
			return
		}
		session := e.Session != caveat.SessionID{}
		if !session && e.User == "" && !e.All || session && e.All || e.All && e.User != "" || e.Device != "" && e.User == "" && !session {
			t.Fatalf("about nothing, or two things: %+v", e)
		}
	})
}
