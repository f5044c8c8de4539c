package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/store/storetest"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// The keys of security events are public, if there are any.
func TestJWKS(t *testing.T) {
	t.Parallel()
	const keys = `{"keys":[]}`
	w := newWorld(t, func(c *server.Config) { c.JWKS = []byte(keys) })
	if a := w.do(w.request(http.MethodGet, wire.PathJWKS, "")); a.status != http.StatusOK || string(a.body) != keys || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("got %d %v %s", a.status, a.header, a.body)
	}
	w = newWorld(t)
	if a := w.do(w.request(http.MethodGet, wire.PathJWKS, "")); a.status == http.StatusOK {
		t.Errorf("without keys: %d %s", a.status, a.body)
	}
}

// The second line of an event, for security event tokens, is not sent to the
// homeserver, neither from the store nor as it happens.
func TestFeedKeepsSecondLines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *server.Config) {
		c.Feed.Source = &storetest.Raw{Feed: c.Feed.Source, Data: map[string]string{
			"earlier version": `{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAQ","at":1790000000000,"until":1790003720000,"reason":"logout"}` +
				"\n" + `{"user":"@canary:a.example","device":"canary"}`,
		}}
	})
	publish := func() {
		testkit.NoError(t, w.store.Publish(t.Context(), "a.example", storetest.Event("earlier version", time.Now().Add(time.Hour))))
	}
	publish()
	s := w.streamFeed("")
	for i := range 3 {
		event := s.event()
		if i == 1 {
			publish()
			continue // it is up to date
		}
		if !strings.Contains(event, "AAAAAAAAAAAAAAAAAAAAAQ") || strings.Contains(event, "canary") || strings.Count(event, "\n") != 2 {
			t.Errorf("event %d is %q", i, event)
		}
	}
}
