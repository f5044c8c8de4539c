package server_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// refreshesVariable sets the length of this test; 10000 take half a
// minute with the race detector.
const refreshesVariable = "DISCHARGER_TEST_REFRESHES"

// lossyRoad loses every 20th reply, after the service has given it.
type lossyRoad struct {
	n, lost atomic.Int64
}

var errLostReply = errors.New("connection reset by peer")

func (l *lossyRoad) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || l.n.Add(1)%20 != 0 {
		return resp, err
	}
	l.lost.Add(1)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, err
	}
	return nil, errors.Join(errLostReply, resp.Body.Close())
}

// TestLostReplies has 50 clients refresh through the real server, and one reply
// in twenty get lost. No client is logged out or taken for a thief.
func TestLostReplies(t *testing.T) {
	t.Parallel()
	const clients = 50
	refreshes := 2000
	if text := os.Getenv(refreshesVariable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < clients {
			t.Fatalf("%s is %q, want a number from %d on", refreshesVariable, text, clients)
		}
		refreshes = n
	}
	st, err := redis.Open(t.Context(), redis.Config{
		Addrs: []string{redistest.Start(t).Socket}, TagKey: make([]byte, 32),
		DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience,
	})
	testkit.NoError(t, err)
	t.Cleanup(func() { st.Close() })
	w := newWorldOn(t, st, slog.LevelWarn)
	road := &lossyRoad{}
	c, err := client.New(client.Config{
		URL: w.http.URL, HTTPClient: &http.Client{Transport: road}, Timeout: patience, Patience: patience,
	})
	testkit.NoError(t, err)
	var wg sync.WaitGroup
	for i := range clients {
		m, err := w.hs.Mint(homeserver.MintParams{User: "@alice:a.example", Device: fmt.Sprint("PHONE", i), Mode: caveat.ModeRotate})
		testkit.NoError(t, err)
		session, err := c.NewSession(client.SessionConfig{Access: client.Access{Macaroon: m.Macaroon}})
		testkit.NoError(t, err)
		wg.Go(func() {
			for i := range refreshes / clients {
				if err := session.Refresh(t.Context()); err != nil {
					t.Errorf("refresh %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	metrics := scrape(t, w.admin.URL+wire.PathMetrics)
	for _, line := range strings.Split(metrics, "\n") {
		for _, kind := range []string{"reuse", "fork", "stale"} {
			if strings.HasPrefix(line, "discharger_replays_total") && strings.Contains(line, `kind="`+kind+`"`) {
				t.Errorf("a client was taken for another: %s", line)
			}
		}
	}
	if road.lost.Load() < int64(refreshes/25) || !strings.Contains(metrics, `kind="retry"`) {
		t.Errorf("only %d replies were lost", road.lost.Load())
	}
	t.Logf("%d refreshes, %d replies lost", refreshes, road.lost.Load())
}

func scrape(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	testkit.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	testkit.NoError(t, err)
	return string(b)
}
