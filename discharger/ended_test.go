package discharger_test

import (
	"context"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// told reads all that the feed of a homeserver says to those who tell others.
func (w *world) told() (out []discharger.Ended) {
	w.t.Helper()
	page, err := w.store.(discharger.Feed).ReadFeed(context.Background(), "a.example", "")
	mustDo(w.t, err)
	for _, e := range page.Entries {
		var r api.Revocation
		mustDo(w.t, r.UnmarshalJSON(e.Line()))
		read, err := discharger.ReadEvent(e.Data)
		mustDo(w.t, err)
		if read.Session != r.Session || r.Session == (caveat.SessionID{}) && read.User != r.User || read.All != r.All ||
			read.Except != r.Except || !read.At.Equal(r.At) || read.Reason != r.Reason {
			w.t.Errorf("%s is read as %+v", e.Data, read)
		}
		out = append(out, read)
	}
	return out
}

// With a homeserver that is named, an event says whose session has ended and on
// which device, however it ended; with another one it does not.
func TestEventsNameTheSession(t *testing.T) {
	t.Parallel()
	for name, named := range map[string]bool{"named": true, "not named": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *discharger.Config) { c.Named = map[string]bool{"a.example": named, "b.example": !named} })
			ctx := context.Background()
			byClient, byOrder, byDevice, early := w.login(caveat.ModeOpen), w.login(caveat.ModeOpen), w.login(caveat.ModeOpen),
				w.login(caveat.ModeOpen)
			for _, l := range []*login{byClient, byOrder, byDevice} {
				l.must()
			}
			user := discharger.UserKey{Homeserver: "a.example", User: byClient.cond.User}
			mustDo(t, byClient.logout(discharger.ScopeSession))
			mustDo(t, w.service.Revoke(ctx, user, byOrder.cond.Session))
			mustDo(t, w.service.RevokeDevice(ctx, user, byDevice.cond.Device, caveat.SessionID{}))
			mustDo(t, w.service.Revoke(ctx, user, early.cond.Session))
			mustDo(t, w.service.RevokeUser(ctx, user, caveat.SessionID{}))
			mustDo(t, w.service.RevokeHomeserver(ctx, "a.example"))
			told := w.told()
			if len(told) != 6 {
				t.Fatalf("%d events, want 6: %+v", len(told), told)
			}
			for i, l := range []*login{byClient, byOrder, byDevice, early} {
				user, device := l.cond.User, l.cond.Device
				if l == early { // nothing has been heard of it, so the device is not known
					device = ""
				}
				if !named {
					user, device = "", ""
				}
				if g := told[i]; g.Session != l.cond.Session || g.User != user || g.Device != device {
					t.Errorf("event %d says %+v, want session %v of %q on %q", i, g, l.cond.Session, user, device)
				}
			}
			if told[4].User != user.User || told[4].Session != (caveat.SessionID{}) || !told[5].All {
				t.Errorf("the last two are %+v", told[4:])
			}
		})
	}
}

func TestReadEventRefuses(t *testing.T) {
	t.Parallel()
	const id = `"session":"AAAAAAAAAAAAAAAAAAAAAQ"`
	const rest = `,"at":1,"until":2,"reason":"logout"}`
	for name, tt := range map[string]struct{ data, want string }{
		"empty":           {"", "not the JSON"},
		"unknown member":  {`{"v":1,"x":1,` + id + rest, "not the JSON"},
		"version":         {`{"v":2,` + id + rest, "version 2"},
		"nobody":          {`{"v":1` + rest, "not about one"},
		"two":             {`{"v":1,"all":true,` + id + rest, "not about one"},
		"zero session":    {`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAA"` + rest, "not about one"},
		"except":          {`{"v":1,"all":true,"except":"AAAAAAAAAAAAAAAAAAAAAQ"` + rest, "not about one"},
		"no time":         {`{"v":1,` + id + `,"reason":"logout"}`, "when, or why"},
		"no reason":       {`{"v":1,` + id + `,"at":1}`, "when, or why"},
		"second line":     {`{"v":1,` + id + rest + "\n{}", "beside"},
		"no second line":  {`{"v":1,` + id + rest + "\n", "beside"},
		"owner of a user": {`{"v":1,"user":"a"` + rest + "\n" + `{"user":"a"}`, "beside"},
	} {
		if e, err := discharger.ReadEvent([]byte(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) || e != (discharger.Ended{}) {
			t.Errorf("%s: %+v, %v; want %s", name, e, err, tt.want)
		}
	}
}

// What is read is about one thing, and what is refused is about nothing.
func FuzzReadEvent(f *testing.F) {
	f.Add([]byte(`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","at":1,"until":2,"reason":"logout"}` + "\n" + `{"user":"@a:b","device":"D"}`))
	f.Add([]byte(`{"v":1,"user":"@a:b","except":"AAAAAAAAAAAAAAAAAAAAAQ","before":2,"at":1,"until":2,"reason":"revoked"}`))
	f.Add([]byte(`{"v":1,"all":true,"before":2,"at":1,"until":2,"reason":"revoked"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := discharger.ReadEvent(data)
		if err != nil {
			if e != (discharger.Ended{}) {
				t.Fatal("an error and an event")
			}
			return
		}
		session := e.Session != caveat.SessionID{}
		if !session && e.User == "" && !e.All || session && e.All || e.All && e.User != "" || e.Device != "" && !session {
			t.Fatalf("about nothing, or two things: %+v", e)
		}
	})
}
