package matrix

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
)

// newMautrix logs in with mautrix-go and returns a client with a channel of received
// messages.
func (g *gateway) newMautrix(t *testing.T, name string, refresh bool) (*mautrix.Client, *mautrix.RespLogin, <-chan string) {
	t.Helper()
	u := g.register(t, name)
	c, err := mautrix.NewClient(g.url, "", "")
	if err != nil {
		t.Fatal(err)
	}
	login, err := c.Login(t.Context(), &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: u.name},
		Password: u.password, RefreshToken: refresh, StoreCredentials: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 100)
	syncer := c.Syncer.(*mautrix.DefaultSyncer)
	syncer.OnEventType(event.EventMessage, func(_ context.Context, e *event.Event) { received <- e.ID.String() })
	return c, login, received
}

// A bot on mautrix-go, which stops for good at M_UNKNOWN_TOKEN, lives for more than
// three discharges.
func (g *gateway) testMautrix(t *testing.T) {
	c, login, received := g.newMautrix(t, "bot", false)
	if login.RefreshToken != "" || login.ExpiresInMS != 0 {
		t.Errorf("got %+v", login)
	}
	ctx, cancel := context.WithCancel(t.Context())
	synced := make(chan error, 1)
	go func() { synced <- c.SyncWithContext(ctx) }()
	room, err := c.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat"})
	if err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); time.Since(begin) < 3*ttl+ttl/2; time.Sleep(ttl / 8) {
		sent, err := c.SendText(ctx, room.RoomID, "hello")
		if err != nil {
			t.Fatal(err)
		}
		select {
		case id := <-received:
			if id != sent.EventID.String() {
				t.Fatalf("received %s, sent %s", id, sent.EventID)
			}
		case err := <-synced:
			t.Fatalf("sync ended: %v", err)
		case <-time.After(time.Minute):
			t.Fatal("never came back")
		}
	}
	cancel()
	<-synced
	if _, err := c.Logout(t.Context()); err != nil {
		t.Error(err)
	}
}

// A bot with a refresh token refreshes itself: this library leaves it to the
// application.
func (g *gateway) testMautrixRefresh(t *testing.T) {
	asked := time.Now()
	c, login, _ := g.newMautrix(t, "bot2", true)
	token, lasts := login.RefreshToken, time.Duration(login.ExpiresInMS)*time.Millisecond
	alive := func() {
		t.Helper()
		if _, err := c.Whoami(t.Context()); err != nil && (time.Since(asked) < lasts || !errors.Is(err, mautrix.MUnknownToken)) {
			t.Fatal(err)
		}
	}
	for range 3 {
		alive()
		eventually(t, "the access token runs out", func() bool {
			_, err := c.Whoami(t.Context())
			if err != nil && !errors.Is(err, mautrix.MUnknownToken) {
				t.Fatal(err)
			}
			return err != nil
		})
		var answer struct {
			AccessToken  string `json:"access_token"`
			RefreshToken string `json:"refresh_token"`
			Expires      int64  `json:"expires_in_ms"`
		}
		asked = time.Now()
		_, err := c.MakeFullRequest(t.Context(), mautrix.FullRequest{
			Method: http.MethodPost, URL: c.BuildClientURL("v3", "refresh"),
			RequestJSON: map[string]string{"refresh_token": token}, ResponseJSON: &answer,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.AccessToken, token = answer.AccessToken, answer.RefreshToken
		lasts = time.Duration(answer.Expires) * time.Millisecond
	}
	alive()
}

// matrix-js-sdk, with and without refresh.
func (g *gateway) testJS(t *testing.T, k *kit, refresh bool) {
	u := g.register(t, map[bool]string{false: "web", true: "web2"}[refresh])
	var report struct {
		Refreshes   int  `json:"refreshes"`
		Sent        int  `json:"sent"`
		Received    int  `json:"received"`
		LoggedOut   int  `json:"logged_out"`
		Login       body `json:"login"`
		AfterLogout body `json:"after_logout"`
	}
	k.node(t, "jssdk.mjs", body{
		"url": g.url, "user": u.name, "password": u.password, "refresh": refresh,
		"milliseconds": (3*ttl + ttl).Milliseconds(),
	}, &report)
	t.Logf("%+v", report)
	if report.LoggedOut > 0 || report.Sent < 3 || report.Received != report.Sent {
		t.Errorf("lost something: %+v", report)
	}
	if refresh && report.Refreshes < 3 {
		t.Errorf("refreshed %d times", report.Refreshes)
	}
	if report.Login["has_refresh_token"] != refresh || (report.Login["expires_in_ms"] != nil) != refresh {
		t.Errorf("login returned %v", report.Login)
	}
	if report.AfterLogout["status"] != float64(http.StatusUnauthorized) || report.AfterLogout.text("errcode") != "M_UNKNOWN_TOKEN" {
		t.Errorf("after the logout: %v", report.AfterLogout)
	}
}
