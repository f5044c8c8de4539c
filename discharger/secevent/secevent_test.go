package secevent_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/secevent"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/storetest"
	"github.com/discharger/discharger/discharger/testkit"
)

// The receiver gets each kind of revocation once, in order, with its subject.
func TestSubjects(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		r := newReceiver(w, nil)
		w.send(w.config(r.to("a.example")))
		ctx := t.Context()
		began := time.Now().Unix()

		s := w.login("a.example", alice, "PHONE")
		s.logout(discharger.ScopeSession)
		e := r.next()
		if e.member("user") != alice || e.member("session") != s.id.String() || e.member("device") != "PHONE" || e.member("tenant") != "" {
			t.Errorf("subject %v", e.claims["sub_id"])
		}
		for header, want := range map[string]string{
			"Content-Type": "application/secevent+jwt", "Accept": "application/json", "Authorization": authorization,
		} {
			if got := e.header.Get(header); got != want {
				t.Errorf("%s is %q, want %q", header, got, want)
			}
		}
		if at, _ := e.revoked["event_timestamp"].(float64); int64(at) < began-1 || int64(at) > time.Now().Unix() || at != float64(int64(at)) {
			t.Errorf("event of %v, it is %v", e.revoked["event_timestamp"], began)
		}
		if e.revoked["initiating_entity"] != "user" || fmt.Sprint(e.revoked["reason_admin"]) != "map[en:The user logged out.]" ||
			e.revoked[secevent.MemberKind] != "hard" || e.revoked[secevent.MemberDevices] != nil {
			t.Errorf("event %v", e.revoked)
		}

		w.login("a.example", alice, "").logout(discharger.ScopeUser)
		if e := r.next(); e.member("user") != alice || e.member("session") != "" || e.member("device") != "" || e.revoked[secevent.MemberExcept] != nil {
			t.Errorf("subject %v, event %v", e.claims["sub_id"], e.revoked)
		}

		time.Sleep(time.Millisecond) // a session minted in the millisecond of a revocation is covered by it
		user := store.UserKey{Homeserver: "a.example", User: alice}
		kept := w.login("a.example", alice, "TABLET")
		if _, err := w.service.RevokeUser(ctx, user, discharger.Order{Except: kept.id, Devices: true, Soft: true}); err != nil {
			t.Fatal(err)
		}
		e = r.next()
		if except, _ := e.revoked[secevent.MemberExcept].(map[string]any); e.member("user") != alice || e.member("session") != "" ||
			except["format"] != "opaque" || except["id"] != kept.id.String() || e.revoked["initiating_entity"] != "system" ||
			e.revoked[secevent.MemberDevices] != true || e.revoked[secevent.MemberKind] != "soft" {
			t.Errorf("subject %v, event %v", e.claims["sub_id"], e.revoked)
		}
		if _, err := w.service.RevokeDevice(ctx, user, "TABLET", discharger.Order{}); err != nil {
			t.Fatal(err)
		}
		if e := r.next(); e.member("session") != kept.id.String() || e.member("user") != alice || e.member("device") != "TABLET" {
			t.Errorf("subject %v", e.claims["sub_id"])
		}
		if e := r.next(); e.member("session") != "" || e.member("user") != alice || e.member("device") != "TABLET" {
			t.Errorf("subject %v", e.claims["sub_id"])
		}
		testkit.NoError(t, w.service.RevokeHomeserver(ctx, "b.example", discharger.Order{})) // it has no receiver
		testkit.NoError(t, w.service.RevokeHomeserver(ctx, "a.example", discharger.Order{}))
		if e := r.next(); e.member("tenant") != "a.example" || e.member("user") != "" || e.member("session") != "" {
			t.Errorf("subject %v", e.claims["sub_id"])
		}
		r.quiet()
		if n := w.value("failed_total", "a.example") + w.value("refused_total", "a.example") + w.value("gaps_total", "a.example"); n != 0 {
			t.Errorf("%v failures are counted", n)
		}
	})
}

// An event in the feed without names becomes a token without them.
func TestEventsWithoutNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		r := newReceiver(w, nil)
		at := time.Now()
		id := caveat.NewSessionID()
		until := at.Add(time.Hour)
		testkit.NoError(t, w.store.Publish(t.Context(), "a.example", storetest.Event("malformed", until), storetest.Event("nameless", until)))
		testkit.NoError(t, w.store.Publish(t.Context(), "a.example", storetest.Event("earlier version", until)))
		cfg := w.config(r.to("a.example"))
		cfg.Feed = &storetest.Raw{Feed: w.store, Data: map[string]string{
			"malformed": "{nonsense",
			"nameless":  fmt.Sprintf(`{"v":1,"session":%q,"at":%d,"until":%d,"reason":"later"}`, id, at.UnixMilli(), until.UnixMilli()),
			"earlier version": fmt.Sprintf(`{"v":1,"session":%q,"at":%d,"until":%d,"reason":"logout"}`+"\n"+`{"user":"@bob:a.example","device":"PHONE"}`,
				id, at.UnixMilli(), until.UnixMilli()),
		}}
		w.send(cfg)
		e := r.next()
		if e.member("session") != id.String() || len(e.claims["sub_id"].(map[string]any)) != 2 || e.revoked["initiating_entity"] != "system" {
			t.Errorf("subject %v, event %v", e.claims["sub_id"], e.revoked)
		}
		// An earlier version had the names in a second line.
		if e := r.next(); e.member("session") != id.String() || e.member("user") != "@bob:a.example" || e.member("device") != "PHONE" {
			t.Errorf("subject %v", e.claims["sub_id"])
		}
		if w.value("gaps_total", "a.example") != 1 || !strings.Contains(w.out.String(), "malformed revocation") {
			t.Errorf("a malformed event is not counted or not logged:\n%s", &w.out)
		}
	})
}

// A new sender continues at the position of the receiver. Without a position all
// events are sent again, under the same ids.
func TestRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		r := newReceiver(w, nil)
		cfg := w.config(r.to("a.example"))
		stop := w.send(cfg)
		var ids []string
		logout := func() { w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession) }
		logout()
		ids = append(ids, r.next().jti())
		w.until("delivered_total", "a.example", 1)
		stop()
		logout()
		logout()
		stop = w.send(cfg)
		ids = append(ids, r.next().jti(), r.next().jti())
		logout()
		ids = append(ids, r.next().jti())
		w.until("delivered_total", "a.example", 4)
		stop()
		r.quiet()

		files, err := filepath.Glob(filepath.Join(w.dir, "security-events-*.json"))
		testkit.NoError(t, err)
		if len(files) != 1 {
			t.Fatalf("positions are in %v", files)
		}
		if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		testkit.NoError(t, os.Remove(files[0]))
		stop = w.send(cfg)
		seen := make(map[string]bool)
		for _, id := range ids {
			if got := r.next().jti(); got != id {
				t.Errorf("sent again under the id %s, want %s", got, id)
			}
			seen[id] = true
		}
		w.until("delivered_total", "a.example", 8)
		stop()
		if len(seen) != 4 {
			t.Errorf("ids are not different: %v", ids)
		}

		testkit.NoError(t, os.WriteFile(files[0], []byte(`{"homeserver":"b.example"}`), 0o600))
		if _, err := secevent.New(cfg); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("a damaged position: %v", err)
		}
	})
}

// Events that were dropped from the feed are logged and counted, and the rest is
// sent.
func TestGap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		r := newReceiver(w, nil)
		cfg := w.config(r.to("a.example"))
		for range 5 {
			w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		}
		stop := w.send(cfg)
		r.next()
		r.next()
		w.until("delivered_total", "a.example", 2)
		stop()
		r.quiet()
		if n := w.value("gaps_total", "a.example"); n != 1 {
			t.Errorf("%v gaps are counted, want 1", n)
		}
		for range 3 {
			w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		}
		stop = w.send(cfg)
		r.next()
		r.next()
		w.until("delivered_total", "a.example", 4)
		stop()
		r.quiet()
		if n := w.value("gaps_total", "a.example"); n != 2 || !strings.Contains(w.out.String(), "feed has a gap") {
			t.Errorf("%v gaps are counted, want 2; log:\n%s", n, &w.out)
		}
	})
}

// A receiver that does not answer delays neither logouts, other receivers nor the end
// of Run.
func TestSlowReceiver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		release, came := make(chan struct{}), make(chan struct{}, 8)
		slow := newReceiver(w, func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			came <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return true
		})
		t.Cleanup(func() { close(release) })
		quick := newReceiver(w, nil)
		stop := w.send(w.config(slow.to("a.example"), quick.to("b.example")))
		w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		<-came
		w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		for range 3 {
			w.login("b.example", "@bob:b.example", "PHONE").logout(discharger.ScopeSession)
			if e := quick.next(); e.member("user") != "@bob:b.example" {
				t.Errorf("subject %v", e.claims["sub_id"])
			}
		}
		time.Sleep(time.Second)
		if age := w.value("oldest_seconds", "a.example"); age < 1 {
			t.Errorf("the oldest undelivered revocation is %v s old", age)
		}
		stop()
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	good := secevent.Receiver{Homeserver: "a.example", URL: "https://r.example/hunter2", Audience: "r"}
	for name, tt := range map[string]struct {
		change func(*secevent.Config, *secevent.Receiver)
		want   string
	}{
		"no feed":       {func(c *secevent.Config, _ *secevent.Receiver) { c.Feed = nil }, "feed is missing"},
		"no issuer":     {func(c *secevent.Config, _ *secevent.Receiver) { c.Issuer = "" }, "issuer is missing"},
		"no keys":       {func(c *secevent.Config, _ *secevent.Receiver) { c.Keys = nil }, "keys are missing"},
		"no directory":  {func(c *secevent.Config, _ *secevent.Receiver) { c.Dir = "" }, "directory is missing"},
		"timeout":       {func(c *secevent.Config, _ *secevent.Receiver) { c.Timeout = -1 }, "negative"},
		"two":           {func(c *secevent.Config, r *secevent.Receiver) { c.Receivers = append(c.Receivers, *r) }, "duplicate receiver"},
		"no homeserver": {func(_ *secevent.Config, r *secevent.Receiver) { r.Homeserver = "" }, "homeserver is missing"},
		"no audience":   {func(_ *secevent.Config, r *secevent.Receiver) { r.Audience = "" }, "audience is missing"},
		"http":          {func(_ *secevent.Config, r *secevent.Receiver) { r.URL = "http://r.example/hunter2" }, "neither https"},
		"no URL":        {func(_ *secevent.Config, r *secevent.Receiver) { r.URL = "hunter2" }, "url is invalid"},
		"user":          {func(_ *secevent.Config, r *secevent.Receiver) { r.URL = "https://a:hunter2@r.example" }, "has a user"},
		"two headers":   {func(_ *secevent.Config, r *secevent.Receiver) { r.Authorization = secret.Bytes("hunter2\r\nX: y") }, "printable"},
	} {
		t.Run(name, func(t *testing.T) {
			r := good
			cfg := w.config()
			cfg.Receivers = []secevent.Receiver{good}
			tt.change(&cfg, &r)
			cfg.Receivers[0] = r
			s, err := secevent.New(cfg)
			if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v; want %s", err, tt.want)
			}
		})
	}
	if _, err := secevent.New(w.config(good)); err != nil {
		t.Error(err)
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	if _, err := secevent.NewKeys(nil); err == nil {
		t.Error("no keys were accepted")
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	testkit.NoError(t, err)
	if _, err := secevent.NewKeys([]*rsa.PrivateKey{short}); err == nil || !strings.Contains(err.Error(), "1024 bits") {
		t.Errorf("a short key: %v", err)
	}
	old, err := signingKey()
	testkit.NoError(t, err)
	newer, err := rsa.GenerateKey(rand.Reader, 2048)
	testkit.NoError(t, err)
	keys, err := secevent.NewKeys([]*rsa.PrivateKey{newer, old})
	testkit.NoError(t, err)
	read, err := readJWKS(keys.JWKS())
	testkit.NoError(t, err)
	if len(read) != 2 {
		t.Errorf("%d keys are published, want 2", len(read))
	}
	for _, k := range read {
		if !k.Equal(&old.PublicKey) && !k.Equal(&newer.PublicKey) {
			t.Error("another key is published")
		}
	}
	text, err := json.Marshal(keys)
	testkit.NoError(t, err)
	shown := fmt.Sprintf("%v %+v %#v %d %x %s", keys, keys, keys, keys, keys, text)
	if shown != strings.TrimSpace(strings.Repeat("REDACTED ", 5)+`"REDACTED"`) {
		t.Errorf("keys are shown as %s", shown)
	}
}

// Failed reads of a feed are retried.
func TestFeedTrouble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		r := newReceiver(w, nil)
		cfg := w.config(r.to("a.example"))
		cfg.Feed = &faulty{Feed: w.store, left: 3}
		w.send(cfg)
		w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		r.next()
		doubling(t, w.logged(), 3)
	})
}

// faulty is a feed whose first reads fail. It has one reader.
type faulty struct {
	store.Feed
	left int
}

func (f *faulty) ReadFeed(ctx context.Context, hs, after string) (store.FeedPage, error) {
	if f.left > 0 {
		f.left--
		return store.FeedPage{}, store.ErrLost
	}
	return f.Feed.ReadFeed(ctx, hs, after)
}
