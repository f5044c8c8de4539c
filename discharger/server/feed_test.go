package server_test

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/server"
	"github.com/discharger/discharger/discharger/sse"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/storetest"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// patience is how long a test waits for an event.
const patience = time.Minute

// following runs a feed until the test ends, and returns it when it is up to
// date.
func (w *world) following(change ...func(*homeserver.FeedConfig)) *homeserver.Feed {
	w.t.Helper()
	feed := w.follow(change...)
	ctx, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	testkit.NoError(w.t, feed.WaitCurrent(ctx))
	return feed
}

func (w *world) follow(change ...func(*homeserver.FeedConfig)) *homeserver.Feed {
	w.t.Helper()
	cfg := homeserver.FeedConfig{
		Client: w.api(apiKey),
	}
	for _, f := range change {
		f(&cfg)
	}
	var feed *homeserver.Feed
	cfg.OnDisconnect = func(error) { time.AfterFunc(10*time.Millisecond, feed.Reconnect) } // soon, but do not spin
	feed, err := homeserver.NewFeed(cfg)
	testkit.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- feed.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	return feed
}

// verifying is the homeserver of the world, with revocations to keep to.
func (w *world) verifying(r homeserver.Revocations) *homeserver.Homeserver {
	w.t.Helper()
	cfg := w.hsConfig
	cfg.Revocations = r
	hs, err := homeserver.New(cfg)
	testkit.NoError(w.t, err)
	return hs
}

// feedStream reads a feed line by line, as homeservers in other languages do.
type feedStream struct {
	t    testing.TB
	resp *http.Response
	in   *bufio.Scanner
}

func (w *world) streamFeed(after string, header ...string) *feedStream {
	w.t.Helper()
	r := w.request(http.MethodGet, wire.PathRevocations, "", append([]string{"Authorization", "Bearer " + apiKey}, header...)...)
	if after != "" {
		r.Header.Set(wire.HeaderLastEventID, after)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	w.t.Cleanup(cancel)
	resp, err := w.http.Client().Do(r.WithContext(ctx))
	testkit.NoError(w.t, err)
	w.t.Cleanup(func() { resp.Body.Close() })
	return &feedStream{w.t, resp, bufio.NewScanner(resp.Body)}
}

// event reads the next event, heartbeats apart: its lines, joined. It is "" at
// the end.
func (s *feedStream) event() string {
	s.t.Helper()
	var lines []string
	for s.in.Scan() {
		switch line := s.in.Text(); {
		case line != "":
			lines = append(lines, line)
		case len(lines) == 0, len(lines) == 1 && lines[0] == ":":
			lines = nil
		default:
			return strings.Join(lines, "\n")
		}
	}
	return ""
}

// TestFeedStream reads the lines themselves.
func TestFeedStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	ctx := context.Background()
	one, two := w.session("@alice:a.example", "PHONE", caveat.ModeOpen), w.session("@alice:a.example", "LAPTOP", caveat.ModeRotate)
	testkit.NoError(t, one.Logout(ctx, wire.ScopeSession))
	revoked(t)(w.api(strangersKey).RevokeUser(ctx, "@carol:b.example", wire.RevokeOptions{}))

	const current = "event: current\ndata: {\"heartbeat\":1000}"
	s := w.streamFeed("")
	if h := s.resp.Header; s.resp.StatusCode != 200 || h.Get("Content-Type") != sse.ContentType || h.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", s.resp.StatusCode, h)
	}
	first := s.event()
	if !strings.HasPrefix(first, "event: revocation\nid: ") || !strings.Contains(first, "\ndata: {\"v\":1,\"session\":\""+one.Minted.Session.String()+"\"") {
		t.Fatalf("got %q", first)
	}
	if got := s.event(); got != current {
		t.Fatalf("got %q", got)
	}
	testkit.NoError(t, two.Logout(ctx, wire.ScopeUser))
	second := s.event()
	if !strings.Contains(second, `"user":"@alice:a.example","before":`) || !strings.Contains(second, `"reason":"logout"`) {
		t.Fatalf("got %q", second)
	}
	position := func(event string) string {
		_, rest, _ := strings.Cut(event, "\nid: ")
		id, _, _ := strings.Cut(rest, "\n")
		return id
	}
	s = w.streamFeed(position(first))
	if got := s.event(); got != second {
		t.Fatalf("resumed with %q", got)
	}
	s = w.streamFeed(position(second))
	if got := s.event(); got != current {
		t.Fatalf("resumed with %q", got)
	}
	for _, unknown := range []string{"x", position(first) + "0", strings.Repeat("9", 3000)} {
		s = w.streamFeed(unknown)
		for i, want := range []string{"event: gap\ndata: {}", first, second, current} {
			if got := s.event(); got != want {
				t.Fatalf("resumed at %.40q: event %d is %q, want %q", unknown, i, got, want)
			}
		}
	}
}

// TestAttackFeedForgery: a key opens one feed, and none opens none.
func TestAttackFeedForgery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger)
	ours := w.following()
	theirs := w.following(func(c *homeserver.FeedConfig) { c.Client = w.api(strangersKey) })
	id := caveat.NewSessionID()
	// The stranger names our user's session, and revokes all there is.
	revoked(t)(w.api(strangersKey).RevokeSession(t.Context(), "@alice:a.example", id, wire.RevokeOptions{}))
	testkit.NoError(t, w.api(strangersKey).RevokeHomeserver(t.Context(), wire.RevokeOptions{}))
	testkit.Eventually(t, "they know", func() bool { return theirs.Status().Events == 2 })
	revoked(t)(w.api(apiKey).RevokeUser(t.Context(), "@bob:a.example", wire.RevokeOptions{}))
	testkit.Eventually(t, "we know", func() bool { return ours.Status().Events == 1 })
	if ours.Revoked(homeserver.Identity{Session: id, User: "@alice:a.example"}) {
		t.Error("another homeserver's revocation counts")
	}
	for name, header := range map[string][]string{
		"no key":    nil,
		"wrong key": {"Authorization", "Bearer x"},
		"two keys":  {"Authorization", "Bearer " + apiKey, "Authorization", "Bearer " + apiKey},
	} {
		a := w.do(w.request(http.MethodGet, wire.PathRevocations, "", header...))
		if e := a.error(t); a.status != 401 || e.Code != wire.CodeUnauthorized {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := w.post(wire.PathRevocations, nil, "Authorization", "Bearer "+apiKey); a.status != 405 {
		t.Errorf("POST: %d", a.status)
	}
}

// TestRevokedIsRefused: a bundle that is valid for minutes is refused as soon as its
// session has ended.
func TestRevokedIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := context.Background()
	hs := w.verifying(w.following())
	verify := func(s login, bundle string, want error) {
		t.Helper()
		if want == nil {
			if _, err := hs.Verify(ctx, bundle, homeserver.Request{}); err != nil {
				t.Fatal(err)
			}
			return
		}
		testkit.Eventually(t, "it is refused", func() bool {
			_, err := hs.Verify(ctx, bundle, homeserver.Request{})
			return errors.Is(err, want)
		})
	}
	bundle := func(s login) string {
		t.Helper()
		b, err := s.Bundle(ctx)
		testkit.NoError(t, err)
		return b
	}
	a, b, c := w.session("@alice:a.example", "A", caveat.ModeRotate), w.session("@alice:a.example", "B", caveat.ModeRotate), w.session("@alice:a.example", "C", caveat.ModeOpen)
	bob := w.session("@bob:a.example", "A", caveat.ModeRotate)
	bundles := map[*login]string{&a: bundle(a), &b: bundle(b), &c: bundle(c), &bob: bundle(bob)}
	for s, text := range bundles {
		verify(*s, text, nil)
	}
	testkit.NoError(t, a.Logout(ctx, wire.ScopeSession))
	verify(a, bundles[&a], homeserver.ErrRevoked)
	verify(b, bundles[&b], nil)
	revoked(t)(w.api(apiKey).RevokeUser(ctx, "@alice:a.example", wire.RevokeOptions{Except: b.Minted.Session}))
	verify(c, bundles[&c], homeserver.ErrRevoked)
	verify(b, bundles[&b], nil)
	verify(bob, bundles[&bob], nil)
	testkit.NoError(t, w.api(apiKey).RevokeHomeserver(ctx, wire.RevokeOptions{}))
	verify(b, bundles[&b], homeserver.ErrRevoked)
	verify(bob, bundles[&bob], homeserver.ErrRevoked)
	// A new login is not affected, and a restarted homeserver has the same
	// revocations as the first one.
	revoked := time.Now()
	testkit.Eventually(t, "the millisecond is over", func() bool { return time.Since(revoked) > 2*time.Millisecond })
	fresh := w.session("@alice:a.example", "D", caveat.ModeRotate)
	verify(fresh, bundle(fresh), nil)
	hs = w.verifying(w.following())
	verify(a, bundles[&a], homeserver.ErrRevoked)
	verify(bob, bundles[&bob], homeserver.ErrRevoked)
	verify(fresh, bundle(fresh), nil)
}

// TestFeedManyFollow has many followers during many revocations, from several sources:
// each receives all of them in the same order.
func TestFeedManyFollow(t *testing.T) {
	t.Parallel()
	const followers, revokers, each = 20, 4, 50
	w := newWorld(t)
	heard := make([][]caveat.SessionID, followers)
	counts := make([]atomic.Int64, followers)
	for i := range followers {
		w.following(func(c *homeserver.FeedConfig) {
			c.OnEvent = func(r revocation.Event) {
				heard[i] = append(heard[i], r.Session)
				counts[i].Add(1)
			}
		})
	}
	var wg sync.WaitGroup
	for r := range revokers {
		wg.Go(func() {
			for n := range each {
				id := caveat.SessionID{byte(r + 1), byte(n), 1}
				if _, err := w.api(apiKey).RevokeSession(context.Background(), "@alice:a.example", id, wire.RevokeOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range counts {
		testkit.Eventually(t, "all events are received", func() bool { return counts[i].Load() >= revokers*each })
		for n := range heard[0] {
			if heard[i][n] != heard[0][n] {
				t.Fatalf("follower %d received %v as number %d, follower 0 %v", i, heard[i][n], n, heard[0][n])
			}
		}
	}
}

// TestFeedOutlivesLimits keeps a stream open for longer than any request may
// take: heartbeats come, and later revocations arrive. The time is fake.
func TestFeedOutlivesLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit, lasts, beat = 10 * time.Second, 40 * time.Second, 7 * time.Second
		bolt, err := bolt.Open(bolt.Config{Path: filepath.Join(t.TempDir(), "sessions.db")})
		testkit.NoError(t, err)
		t.Cleanup(func() { bolt.Close() })
		w, cfg := newUnserved(t, bolt, slog.LevelError, func(c *server.Config) {
			c.Timeout, c.Limits.InFlight, c.Feed.Heartbeat = limit, 1, beat
		})
		w.http = servePiped(t, server.HTTPServer(w.server.Client(), cfg.Log), limit)
		s := w.streamFeed("")
		if got := s.event(); !strings.HasPrefix(got, "event: current") {
			t.Fatalf("got %q", got)
		}
		start, beats := time.Now(), 0
		for time.Since(start) < lasts && s.in.Scan() {
			if s.in.Text() == ":" {
				beats++
			}
		}
		if want := int((lasts + beat - 1) / beat); beats != want {
			t.Errorf("%d heartbeats, want %d", beats, want)
		}
		revoke := w.request(http.MethodDelete, "/v1/users/@alice:a.example/sessions/AQAAAAAAAAAAAAAAAAAAAA", "", "Authorization", "Bearer "+apiKey)
		if a := w.do(revoke); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
		if got := s.event(); !strings.Contains(got, `"session":"AQAAAAAAAAAAAAAAAAAAAA"`) {
			t.Errorf("got %q", got)
		}
	})
}

// TestFeedDrain: streams end at once, and none begins.
func TestFeedDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.streamFeed("")
	s.event()
	w.server.Drain()
	if got := s.event(); got != "" {
		t.Errorf("got %q", got)
	}
	if a := w.do(w.request(http.MethodGet, wire.PathRevocations, "", "Authorization", "Bearer "+apiKey)); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.server.Drain() // again, which is nothing
}

// TestFeedSubscribers allows two streams for each homeserver.
func TestFeedSubscribers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, withStranger, func(c *server.Config) { c.Feed.Subscribers = 2 })
	a, b := w.streamFeed(""), w.streamFeed("")
	a.event()
	b.event()
	if got := w.streamFeed("").resp.StatusCode; got != 503 {
		t.Errorf("a third: %d", got)
	}
	r := w.request(http.MethodGet, wire.PathRevocations, "", "Authorization", "Bearer "+strangersKey)
	resp, err := w.http.Client().Do(r)
	testkit.NoError(t, err)
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("another homeserver's first: %d", resp.StatusCode)
	}
	a.resp.Body.Close()
	testkit.Eventually(t, "there is room again", func() bool { return w.streamFeed("").resp.StatusCode == 200 })
}

// TestFeedSlowReader: a reader that does not read is cut off, and others do not wait.
func TestFeedSlowReader(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	metrics, err := server.NewMetrics(reg)
	testkit.NoError(t, err)
	w := newWorld(t, func(c *server.Config) {
		c.Metrics, c.Feed.WriteTimeout = metrics, 200*time.Millisecond
	})
	over := make(chan struct{}) // the server is done with the slow one
	all := w.server.Client()
	w.http = startServer(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Slow") != "" {
			defer close(over)
		}
		all.ServeHTTP(rw, r)
	}), slog.New(slog.DiscardHandler))
	slow := w.streamFeed("", "X-Slow", "1")
	slow.event()
	var heard atomic.Int64
	quick := w.following(func(c *homeserver.FeedConfig) { c.OnEvent = func(revocation.Event) { heard.Add(1) } })
	// More than fits into the buffers of a connection, many events at a time.
	long := strings.Repeat("u", 200)
	st, n := w.store.Store, int64(0)
	for ended := false; !ended; {
		var events []revocation.Revocation
		for range 400 {
			events = append(events, storetest.Event(long, time.Now().Add(time.Hour)))
		}
		n += int64(len(events))
		testkit.NoError(t, st.Publish(t.Context(), "a.example", events...))
		testkit.Eventually(t, "the quick one has it", func() bool { return heard.Load() == n })
		if n < 100_000 {
			select {
			case <-over:
				ended = true
			default:
			}
			continue
		}
		select {
		case <-over:
			ended = true
		case <-time.After(patience):
			t.Fatal("no reader is cut off")
		}
	}
	if cutOff(t, reg) == 0 {
		t.Error("the cut off is not counted")
	}
	// A machine that stands still may have cut the quick one off, too, who goes on.
	testkit.Eventually(t, "the quick one is up to date", func() bool { return quick.Status().Current })
	if s := quick.Status(); s.Gaps > 0 || heard.Load() != n {
		t.Errorf("%d events of %d, %+v", heard.Load(), n, s)
	}
	for slow.event() != "" { // drain the buffers
	}
}

// cutOff reads how many readers were cut off.
func cutOff(t testing.TB, reg prometheus.Gatherer) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	testkit.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "discharger_feed_cut_off_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

// unreadable is a source that fails while down is set.
type unreadable struct {
	store.Feed
	down atomic.Bool
}

func (u *unreadable) ReadFeed(ctx context.Context, homeserver, after string) (store.FeedPage, error) {
	if u.down.Load() {
		return store.FeedPage{}, errors.New("canary-feed-error")
	}
	return u.Feed.ReadFeed(ctx, homeserver, after)
}

// TestFeedUnreadable: while the feed cannot be read, no heartbeat is sent.
func TestFeedUnreadable(t *testing.T) {
	t.Parallel()
	source := &unreadable{}
	var ahead atomic.Int64
	w := newWorld(t, func(c *server.Config) {
		source.Feed = c.Feed.Source
		c.Feed.Source, c.Feed.Heartbeat = source, 20*time.Millisecond
		*c = c.WithClock(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	})
	s := w.streamFeed("")
	s.event()
	source.down.Store(true)
	if a := w.do(w.request(http.MethodGet, wire.PathRevocations, "", "Authorization", "Bearer "+apiKey)); a.status != 503 || strings.Contains(string(a.body), "canary") {
		t.Errorf("%d %s", a.status, a.body)
	}
	ahead.Store(int64(time.Minute)) // and the feed has not been read since
	if got := s.event(); got != "" {
		t.Errorf("got %q", got)
	}
	feed := w.follow()
	testkit.Eventually(t, "the feed has the error", func() bool { return errors.Is(feed.Status().Err, client.ErrUnavailable) })
	source.down.Store(false)
	testkit.Eventually(t, "it is up to date", func() bool { return feed.Status().Current })
}

// TestFeedServerRestart ends the service in the middle and starts another one
// on the same data: nothing is missed, and nothing comes twice.
func TestFeedServerRestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sessions.db")
	open := func() *bolt.Store {
		t.Helper()
		b, err := bolt.Open(bolt.Config{Path: path})
		testkit.NoError(t, err)
		return b
	}
	var current atomic.Pointer[http.Handler]
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		(*current.Load()).ServeHTTP(rw, r)
	}))
	t.Cleanup(front.Close)
	start := func(b *bolt.Store) *world {
		w := newWorldOn(t, b, slog.LevelError)
		w.http.Close()
		w.http = front
		h := w.server.Client()
		current.Store(&h)
		return w
	}
	b := open()
	w := start(b)
	var heard []caveat.SessionID
	var count atomic.Int64
	feed := w.following(func(c *homeserver.FeedConfig) {
		c.OnEvent = func(r revocation.Event) { heard = append(heard, r.Session); count.Add(1) }
	})
	const rounds, each = 5, 20
	for round := range rounds {
		for n := range each {
			revoked(t)(w.api(apiKey).RevokeSession(t.Context(), "@alice:a.example", caveat.SessionID{byte(round + 1), byte(n + 1)}, wire.RevokeOptions{}))
		}
		if round%2 == 0 {
			w.server.Drain()
		} else {
			front.CloseClientConnections()
			w.server.Drain()
			http.DefaultTransport.(*http.Transport).CloseIdleConnections() // of which it may not know yet that they are gone
		}
		down := http.Handler(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) }))
		current.Store(&down)
		testkit.Eventually(t, "the connection is lost", func() bool { return !feed.Status().Connected })
		testkit.NoError(t, b.Close())
		b = open()
		w = start(b)
	}
	t.Cleanup(func() { b.Close() })
	revoked(t)(w.api(apiKey).RevokeSession(t.Context(), "@alice:a.example", caveat.SessionID{rounds + 1, 1}, wire.RevokeOptions{}))
	testkit.Eventually(t, "all events are received", func() bool { return count.Load() == rounds*each+1 })
	for i, id := range heard {
		if want := (caveat.SessionID{byte(i/each + 1), byte(i%each + 1)}); id != want {
			t.Fatalf("event %d is about %v, want %v", i, id, want)
		}
	}
	if s := feed.Status(); s.Gaps != 0 {
		t.Errorf("%+v", s)
	}
}

// TestAttackFeedLoss replaces the store under a homeserver that follows: it gets a gap,
// and keeps its revocations.
func TestAttackFeedLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var gaps atomic.Int64
	first := caveat.SessionID{1}
	revoked(t)(w.api(apiKey).RevokeSession(t.Context(), "@alice:a.example", first, wire.RevokeOptions{}))
	other := newWorld(t)
	var target atomic.Pointer[http.Handler]
	h := w.server.Client()
	target.Store(&h)
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { (*target.Load()).ServeHTTP(rw, r) }))
	t.Cleanup(front.Close)
	w.http = front
	feed := w.following(func(c *homeserver.FeedConfig) { c.OnGap = func() { gaps.Add(1) } })
	second := caveat.SessionID{2}
	revoked(t)(other.api(apiKey).RevokeSession(t.Context(), "@alice:a.example", second, wire.RevokeOptions{}))
	h2 := other.server.Client()
	target.Store(&h2)
	w.server.Drain()
	testkit.Eventually(t, "both are known", func() bool {
		return feed.Revoked(homeserver.Identity{Session: first}) && feed.Revoked(homeserver.Identity{Session: second})
	})
	if gaps.Load() != 1 {
		t.Errorf("%d gaps", gaps.Load())
	}
}
