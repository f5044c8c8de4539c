package server_test

import (
	"context"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/server"
)

// asHomeserver is a client with an API key.
func (w *world) asHomeserver(key string) *api.Client {
	w.t.Helper()
	c, err := api.New(api.Config{URL: w.http.URL, APIKey: caveat.Secret(key), Patience: time.Minute})
	must(w.t, err)
	return c
}

// following runs a feed until the test ends, and returns it when it is up to
// date.
func (w *world) following(change ...func(*homeserver.FeedConfig)) *homeserver.Feed {
	w.t.Helper()
	cfg := homeserver.FeedConfig{Client: w.asHomeserver(apiKey)}
	for _, f := range change {
		f(&cfg)
	}
	feed, err := homeserver.NewFeed(cfg)
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- feed.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	wait, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	must(w.t, feed.WaitCurrent(wait))
	return feed
}

func TestFeedSmoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	got := make(chan api.Revocation, 10)
	feed := w.following(func(c *homeserver.FeedConfig) { c.OnEvent = func(r api.Revocation) { got <- r } })
	id, err := caveat.NewSessionID(nil)
	must(t, err)
	must(t, w.asHomeserver(apiKey).RevokeSession(t.Context(), "@alice:a.example", id))
	r := <-got
	t.Logf("%+v %+v", r, feed.Status())
	if !feed.Revoked(homeserver.Identity{Session: id}) {
		t.Error("not revoked")
	}
	_ = server.Config{}
}
