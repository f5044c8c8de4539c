package gateway

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// slowHomeserver blocks every request until it is released, and records it.
type slowHomeserver struct {
	arrived chan string
	release chan struct{}
	begin   bool // send headers immediately
}

func (s *slowHomeserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.RequestURI == upstream.PathLoginFlows {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	if s.begin {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
	}
	s.arrived <- r.Method + " " + r.URL.Path
	select {
	case <-s.release:
		fmt.Fprint(w, "{}")
	case <-r.Context().Done():
	}
}

// drainWorld returns a world with a slow homeserver, for requests without tokens.
func drainWorld(t *testing.T, begin bool) (*world, *slowHomeserver) {
	s := &slowHomeserver{arrived: make(chan string, 16), release: make(chan struct{}), begin: begin}
	w := newWorld(t, func(w *world) { w.cfg.jitter = func() float64 { return 0 } })
	slow := httptest.NewServer(s)
	t.Cleanup(slow.Close)
	testkit.NoError(t, w.gateway.Close())
	w.cfg.Upstream, w.cfg.Registerer = slow.URL, nil
	g, err := New(w.cfg)
	testkit.NoError(t, err)
	w.gateway = g
	w.http = httptest.NewServer(g)
	t.Cleanup(func() { w.http.Close(); _ = g.Close() })
	return w, s
}

var longPolls = []string{
	"GET /_matrix/client/v3/sync?since=s1&timeout=30000", "GET /_matrix/client/r0/sync", "GET /_matrix/client/v3/events?from=s1",
	"POST /_matrix/client/unstable/org.matrix.simplified_msc3575/sync", "POST /_matrix/client/unstable/org.matrix.msc3575/sync",
}

// Drain answers long polls with 503, as Matrix errors with CORS headers, and later ones
// too. Other requests get the homeserver's response.
func TestDrainPolls(t *testing.T) {
	t.Parallel()
	for _, line := range longPolls {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			w, s := drainWorld(t, false)
			method, path, _ := strings.Cut(line, " ")
			others := []string{"GET /_matrix/client/v3/rooms/!a:b/messages", "POST /_matrix/client/v3/createRoom", "GET /_matrix/client/v3/rooms/!a:b/state/sync"}
			answers := make(chan answer, len(others))
			for _, other := range others {
				method, path, _ := strings.Cut(other, " ")
				go func() { answers <- w.do(method, path, "", nil) }()
				<-s.arrived
			}
			polled := make(chan answer, 1)
			go func() { polled <- w.do(method, path, "", nil) }()
			<-s.arrived
			w.gateway.Drain()
			w.gateway.Drain()
			for range 2 {
				a := <-polled
				if a.status != http.StatusServiceUnavailable || a.text("errcode") != "M_UNKNOWN" || a.header.Get("Retry-After") != "1" ||
					a.header.Get("Access-Control-Allow-Origin") != "*" || a.header.Get("Content-Type") != "application/json" {
					t.Errorf("a poll got %d, %v, %s", a.status, a.header, a.raw)
				}
				go func() { polled <- w.do(method, path, "", nil) }()
			}
			<-polled
			close(s.release)
			for range others {
				if a := <-answers; a.status != http.StatusOK {
					t.Errorf("another request got %d, %s", a.status, a.raw)
				}
			}
		})
	}
}

// A poll whose response has begun is not cut.
func TestDrainAnsweredPoll(t *testing.T) {
	t.Parallel()
	w, s := drainWorld(t, true)
	resp, err := http.Get(w.http.URL + "/_matrix/client/v3/sync")
	testkit.NoError(t, err)
	defer resp.Body.Close()
	<-s.arrived
	w.gateway.Drain()
	close(s.release)
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "{}" {
		t.Errorf("the answer ended with %q, %v", body, err)
	}
}
