package server_test

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// TestStreamsSucceed: a stream goes on when a server with other settings takes the
// place of its own, unless that would not have opened it.
func TestStreamsSucceed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*server.Config)
		goes   bool // on
	}{
		{"other settings", func(c *server.Config) { c.Timeout, c.Feed.Subscribers = time.Minute, 1 }, true},
		{"another key beside it", func(c *server.Config) {
			c.APIKeys["a.example"] = append(c.APIKeys["a.example"], sha256.Sum256([]byte("new")))
		}, true},
		{"another key", func(c *server.Config) {
			c.APIKeys = map[string][][sha256.Size]byte{"a.example": {sha256.Sum256([]byte("new"))}}
		}, false},
		{"another homeserver's key", func(c *server.Config) {
			c.APIKeys = map[string][][sha256.Size]byte{"b.example": c.APIKeys["a.example"]}
		}, false},
		{"another heartbeat", func(c *server.Config) { c.Feed.Heartbeat = time.Minute }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var cfg server.Config
			w := newWorld(t, func(c *server.Config) {
				c.Feed.Streams = server.NewStreams()
				cfg = *c
			})
			s := w.streamFeed("")
			s.event() // current
			tt.change(&cfg)
			next, err := server.New(cfg)
			testkit.NoError(t, err)
			next.Succeed()
			id := caveat.SessionID{1}
			revoked(t)(w.api(apiKey).RevokeSession(t.Context(), "@alice:a.example", id, wire.RevokeOptions{}))
			if got := s.event(); strings.Contains(got, id.String()) != tt.goes || !tt.goes && got != "" {
				t.Fatalf("the stream has %q", got)
			}
			if !tt.goes {
				late := w.do(w.request(http.MethodGet, wire.PathRevocations, "", "Authorization", "Bearer "+apiKey))
				if late.status != 503 {
					t.Errorf("a stream that begins at the server before: %d %s", late.status, late.body)
				}
			}
			next.Drain()
			if got := s.event(); got != "" {
				t.Errorf("after the successor was drained, the stream has %q", got)
			}
		})
	}
}
