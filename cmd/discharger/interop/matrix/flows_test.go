package matrix

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func (g *gateway) testVersions(t *testing.T) {
	versions, _ := g.call(t, "GET", "/_matrix/client/versions", "", nil).ok(t).body["versions"].([]any)
	for _, v := range []any{"v1.2", "v1.3"} {
		if !slices.Contains(versions, v) {
			t.Errorf("no %v in %v", v, versions)
		}
	}
}

// send sends a message and returns its event.
func (d *device) send(t *testing.T, room, txn string) string {
	t.Helper()
	a := d.call(t, "PUT", "/rooms/"+url.PathEscape(room)+"/send/m.room.message/"+txn, body{"msgtype": "m.text", "body": txn})
	return a.ok(t).body.text("event_id")
}

func (d *device) room(t *testing.T) string {
	t.Helper()
	return d.call(t, "POST", "/createRoom", body{"preset": "private_chat"}).ok(t).body.text("room_id")
}

// A client without support for refresh tokens uses one access token without limit.
func (g *gateway) testUnaware(t *testing.T) {
	d := g.register(t, "unaware").login(t, nil)
	if d.refresh != "" || d.expires != 0 {
		t.Errorf("a refresh token or an expiry in the answer: %+v", d)
	}
	room := d.room(t)
	first := d.send(t, room, "txn0")
	since := d.call(t, "GET", "/sync?timeout=0", nil).ok(t).body.text("next_batch")
	for begin := time.Now(); time.Since(begin) < 3*ttl+ttl/2; {
		a := d.call(t, "GET", "/sync?timeout=1000&since="+url.QueryEscape(since), nil).ok(t)
		since = a.body.text("next_batch")
		d.alive(t)
	}
	// The homeserver still treats it as the same request of the same client.
	if again := d.send(t, room, "txn0"); again != first {
		t.Errorf("sent twice: %s and %s", first, again)
	}
	d.call(t, "POST", "/logout", body{}).ok(t)
	d.dead(t)
}

// A client that requests refresh tokens uses several of them.
func (g *gateway) testRefresh(t *testing.T) {
	d := g.register(t, "refresher").login(t, body{"refresh_token": true})
	room := d.room(t)
	first := d.send(t, room, "txn0")
	for done := 0; done < 4; {
		if d.refresh == "" || d.expires <= 0 || d.expires > ttl {
			t.Fatalf("got %+v", d)
		}
		d.alive(t)
		old := *d
		eventually(t, "the access token runs out", func() bool { return d.asIs(t).status != http.StatusOK })
		if a := d.asIs(t).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN"); a.body["soft_logout"] != true {
			t.Fatalf("an end that was announced is not soft: %s", a.raw)
		}
		d.take(t, d.refreshed(t).ok(t))
		// The reply may be lost: the old one is valid until the new one is used.
		d.take(t, old.refreshed(t).ok(t))
		token := d.refresh
		d.alive(t)
		if d.refresh != token {
			continue // the machine paused until it expired, and the old one is two epochs back
		}
		eventually(t, "the old refresh token has had its day", func() bool { return old.refreshed(t).status != http.StatusOK })
		old.refreshed(t).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
		d.take(t, d.refreshed(t).ok(t))
		done++
	}
	if again := d.send(t, room, "txn0"); again != first {
		t.Errorf("sent twice: %s and %s", first, again)
	}
	d.call(t, "POST", "/logout", body{}).ok(t)
	d.dead(t)
	d.refreshed(t).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
}

// A client that registers requests a refresh token in its first request, and sends
// only the session of user-interactive authentication in the second.
func (g *gateway) testRegister(t *testing.T) {
	asked := g.call(t, "POST", clientV3+"/register", "", body{"username": "newcomer", "password": "a password", "refresh_token": true})
	session := asked.body.text("session")
	if asked.status != http.StatusUnauthorized || session == "" {
		t.Fatalf("%d %s", asked.status, asked.raw)
	}
	a := g.call(t, "POST", clientV3+"/register", "", body{"auth": body{"type": "m.login.dummy", "session": session}}).ok(t)
	d := &device{user: &user{&g.site, "newcomer", "a password"}, id: a.body.text("device_id")}
	d.take(t, a)
	if d.refresh == "" || d.expires <= 0 {
		t.Fatalf("no refresh token: %s", a.raw)
	}
	d.alive(t)
	d.take(t, d.refreshed(t).ok(t))
	d.alive(t)
}

// Tabs of one browser refresh at once.
func (g *gateway) testRefreshByMany(t *testing.T) {
	d := g.register(t, "tabs").login(t, body{"refresh_token": true})
	for range 3 {
		answers := make([]answer, 8)
		var wg sync.WaitGroup
		for i := range answers {
			wg.Go(func() { answers[i], _ = g.try("POST", clientV3+"/refresh", "", body{"refresh_token": d.refresh}) })
		}
		wg.Wait()
		for _, a := range answers {
			a.ok(t)
			tab := *d
			tab.take(t, a)
			if is := tab.asIs(t); !tab.ranOut(is) && (is.ok(t).body.text("user_id") != d.user.id() || is.body.text("device_id") != d.id) {
				t.Fatalf("another device: %s", is.raw)
			}
		}
		d.take(t, answers[0])
	}
}

func (g *gateway) testTwoDevices(t *testing.T) {
	u := g.register(t, "twofold")
	a, b := u.login(t, nil), u.login(t, body{"refresh_token": true})
	for range 2 {
		a.alive(t)
		b.alive(t)
		time.Sleep(ttl / 2)
		b.take(t, b.refreshed(t).ok(t))
	}
	a.call(t, "POST", "/logout", body{}).ok(t)
	a.dead(t)
	b.alive(t)
	b.call(t, "POST", "/logout", body{}).ok(t)
	b.dead(t)
}

// A token with any change is refused.
func (g *gateway) testWrongTokens(t *testing.T) {
	for _, more := range []body{nil, {"refresh_token": true}} {
		d := g.register(t, "wrong"+string('a'+rune(len(more)))).login(t, more)
		for i := range d.token {
			changed := []byte(d.token)
			changed[i] ^= 1
			a := g.call(t, "GET", clientV3+"/account/whoami", string(changed), nil)
			if a.status == http.StatusOK {
				t.Fatalf("accepted with another byte %d", i)
			}
		}
		d.alive(t)
		g.call(t, "GET", clientV3+"/account/whoami", "", nil).want(t, http.StatusUnauthorized, "M_MISSING_TOKEN")
		if a := g.call(t, "GET", clientV3+"/account/whoami?access_token="+url.QueryEscape(d.token), "", nil); !d.ranOut(a) {
			a.ok(t)
		}
	}
}

// A token from before the gateway goes on, while the configuration allows it.
func (g *gateway) testOldToken(t *testing.T) {
	g.register(t, "before")
	old := (&user{&g.homeserver.site, "before", "password of before"}).login(t, nil)
	g.call(t, "GET", clientV3+"/account/whoami", old.token, nil).ok(t)
	// The answer contains the token by design; testSecrets must not report it.
	old.call(t, "POST", "/logout", body{}).ok(t)
	g.call(t, "GET", clientV3+"/account/whoami", old.token, nil).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
}

// An OpenID token resembles an access token and is not the gateway's: the
// homeserver's own passes.
func (g *gateway) testOpenID(t *testing.T) {
	d := g.register(t, "openid").login(t, nil)
	a := d.call(t, "POST", "/user/"+url.PathEscape(d.user.id())+"/openid/request_token", body{}).ok(t)
	if token := a.body.text("access_token"); token == "" || len(token) >= len(d.token)/2 {
		t.Errorf("got %s", a.raw)
	}
}

// Media are uploaded and downloaded, also in parts.
func (g *gateway) testMedia(t *testing.T) {
	d := g.register(t, "media").login(t, nil)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	req, err := http.NewRequest("POST", g.url+"/_matrix/media/v3/upload?filename=x.bin", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %s %v", resp.StatusCode, raw, err)
	}
	_, uri, ok := strings.Cut(string(raw), "mxc://")
	uri, _, ok2 := strings.Cut(uri, `"`)
	if !ok || !ok2 {
		t.Fatalf("got %s", raw)
	}
	if req, err = http.NewRequest("GET", g.url+"/_matrix/client/v1/media/download/"+uri, nil); err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	if resp, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d, %d bytes of %d, %v", resp.StatusCode, len(got), len(content), err)
	}
}
