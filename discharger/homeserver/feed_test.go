package homeserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/sse"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// feedServer is a service that sends the events of a test, on each connection those
// comes next.
type feedServer struct {
	*httptest.Server
	mu     sync.Mutex
	asked  []string // Last-Event-ID of each connection
	open   int      // connections
	stream chan string
	cut    chan struct{} // ends a connection
}

func newFeedServer(t testing.TB) *feedServer {
	s := &feedServer{stream: make(chan string), cut: make(chan struct{})}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

func (s *feedServer) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Header.Get(wire.HeaderLastEventID))
	s.open++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
	}()
	w.Header().Set("Content-Type", sse.ContentType)
	http.NewResponseController(w).Flush()
	for {
		select {
		case text := <-s.stream:
			io.WriteString(w, text)
			http.NewResponseController(w).Flush()
		case <-s.cut:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (s *feedServer) positions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *feedServer) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

const current = "event: current\ndata: {\"heartbeat\":10000}\n\n"

func event(t testing.TB, position string, r revocation.Event) string {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return "event: revocation\nid: " + position + "\ndata: " + string(b) + "\n\n"
}

// testClock is moved by hand.
type testClock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// follower is a running feed and its reports.
type follower struct {
	*Feed
	server *feedServer
	clock  *testClock
	heard  chan revocation.Event
	gaps   chan struct{}
	waits  chan time.Duration // pauses between connections, which last until they are taken
}

func follow(t *testing.T, change ...func(*FeedConfig)) *follower {
	t.Helper()
	f := &follower{
		server: newFeedServer(t), clock: &testClock{t: time.UnixMilli(1_790_000_000_000).UTC()},
		heard: make(chan revocation.Event, 1000), gaps: make(chan struct{}, 10), waits: make(chan time.Duration),
	}
	client, err := client.New(client.Config{URL: f.server.URL, APIKey: secret.Bytes("key"), Timeout: 5 * time.Minute}) // longer than any test
	if err != nil {
		t.Fatal(err)
	}
	cfg := FeedConfig{
		Client: client, now: f.clock.now,
		OnEvent: func(r revocation.Event) { f.heard <- r }, OnGap: func() { f.gaps <- struct{}{} },
		wait: func(ctx context.Context, d time.Duration) error {
			select {
			case f.waits <- d:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	if f.Feed, err = NewFeed(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return f
}

// send sends revocations and waits until they are known.
func (f *follower) send(t testing.TB, all ...revocation.Event) {
	t.Helper()
	for _, r := range all {
		f.server.stream <- event(t, fmt.Sprintf("p%d", f.Status().Events+1), r)
		if got := <-f.heard; got != r {
			t.Fatalf("received %+v, sent %+v", got, r)
		}
	}
}

// beCurrent sends that the feed is current, and waits for the status.
func (f *follower) beCurrent(t testing.TB) {
	t.Helper()
	f.server.stream <- current
	testkit.Eventually(t, "it is current", func() bool { return f.Status().Current })
}

func (f *follower) session(n byte, lives time.Duration) revocation.Event {
	now := f.clock.now()
	return revocation.Event{Session: caveat.SessionID{n}, At: now, Until: now.Add(lives), Reason: revocation.CauseLogout}
}

// TestAttackFeedReplay: events that come twice, late, in another order or in part
// make no difference to which sessions are refused.
func TestAttackFeedReplay(t *testing.T) {
	t.Parallel()
	f := follow(t)
	now := f.clock.now()
	x, y := f.session(1, time.Hour), f.session(2, time.Hour)
	user := revocation.Event{User: "u", Before: now, At: now, Until: now.Add(time.Hour), Reason: revocation.CauseRevoked}
	earlier := user
	earlier.Before, earlier.At = now.Add(-time.Minute), now.Add(-time.Minute)
	f.send(t, y, x, x, user, earlier, y, user)
	for _, c := range []struct {
		id   Identity
		want bool
	}{
		{Identity{Session: x.Session}, true},
		{Identity{Session: y.Session, User: "v", Minted: now.Add(time.Hour)}, true},
		{Identity{Session: caveat.SessionID{3}, User: "v"}, false},
		{Identity{Session: caveat.SessionID{3}, User: "u", Minted: now.Add(-time.Millisecond)}, true},
		{Identity{Session: caveat.SessionID{3}, User: "u", Minted: now}, false},
	} {
		if got := f.Revoked(c.id); got != c.want {
			t.Errorf("%+v: revoked %v", c.id, got)
		}
	}
	if s := f.Status(); s.Sessions != 2 || s.Users != 1 || s.Events != 7 || !s.Connected || s.Current || !s.Last.Equal(now) {
		t.Errorf("%+v", s)
	}
	f.send(t, revocation.Event{All: true, Before: now.Add(time.Second), At: now, Until: now.Add(time.Hour), Reason: revocation.CauseRevoked})
	if !f.Revoked(Identity{User: "v", Minted: now}) || f.Revoked(Identity{User: "v", Minted: now.Add(time.Second)}) {
		t.Error("a revocation of everything is not kept to")
	}
}

// TestFeedUserModel compares any revocations of one user and of its devices, in
// any order, with each of them alone. The end is that of the oldest, or
// soft if there were too many to keep them apart.
func TestFeedUserModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		var sent []revocation.Event
		for range rapid.IntRange(1, 20).Draw(t, "revocations") {
			r := revocation.Event{User: "u", Until: time.Unix(1<<31, 0), Before: time.UnixMilli(int64(rapid.IntRange(1, 30).Draw(t, "before")))}
			r.Except[0] = byte(rapid.IntRange(0, 3).Draw(t, "except"))
			r.Soft = rapid.Bool().Draw(t, "soft")
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				r.Device = "d"
			case 1:
				r.Devices = true
			case 2:
				r.User, r.All, r.Except = "", true, caveat.SessionID{}
			}
			m.add(&r, 0)
			sent = append(sent, r)
		}
		for _, device := range []string{"", "d", "e"} {
			for session := byte(1); session <= 4; session++ {
				for minted := range int64(31) {
					id := Identity{User: "u", Device: device, Session: caveat.SessionID{session}, Minted: time.UnixMilli(minted)}
					soft, got := m.revoked(&id)
					wantSoft, want := modelled(sent, &id)
					if got != want || soft != wantSoft && (!soft || len(sent) <= maxMarks) {
						t.Fatalf("session %d of %q minted at %d: %v, soft %v, want %v, soft %v", session, device, minted, got, soft, want, wantSoft)
					}
				}
			}
		}
	})
}

// modelled finds the oldest revocation that covers a session.
func modelled(sent []revocation.Event, id *Identity) (soft, revoked bool) {
	oldest := time.Time{}
	for _, r := range sent {
		switch {
		case !id.Minted.Before(r.Before), r.Except == id.Session, r.Device != "" && r.Device != id.Device, r.Devices && id.Device == "":
			continue
		case !revoked, r.Before.Before(oldest), r.Before.Equal(oldest) && r.Soft:
			oldest, soft, revoked = r.Before, r.Soft, true
		}
	}
	return soft, revoked
}

// TestFeedKinds: the kind of a session's own event goes before those of marks,
// and of marks the oldest one's.
func TestFeedKinds(t *testing.T) {
	t.Parallel()
	f := follow(t)
	now := f.clock.now()
	mark := func(before time.Time, soft bool) revocation.Event {
		return revocation.Event{User: "u", Before: before, At: now, Until: now.Add(time.Hour), Soft: soft, Reason: revocation.CauseRevoked}
	}
	own, device := f.session(1, time.Hour), mark(now, true)
	own.User, own.Device, own.Soft, own.Reason = "u", "d", true, revocation.CauseReplaced
	device.Device = "d"
	f.send(t, mark(now, false), own, mark(now.Add(time.Minute), true), device)
	for name, c := range map[string]struct {
		id            Identity
		soft, revoked bool
	}{
		"own event":             {Identity{Session: own.Session, User: "u", Device: "d"}, true, true},
		"oldest is hard":        {Identity{Session: caveat.SessionID{2}, User: "u"}, false, true},
		"only the soft one":     {Identity{Session: caveat.SessionID{2}, User: "u", Minted: now}, true, true},
		"device, at one time":   {Identity{Session: caveat.SessionID{2}, User: "u", Device: "d"}, true, true},
		"after all of them":     {Identity{Session: caveat.SessionID{2}, User: "u", Device: "d", Minted: now.Add(time.Minute)}, false, false},
		"device of another one": {Identity{Session: caveat.SessionID{2}, User: "v", Device: "d"}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			if soft, revoked := f.RevokedKind(c.id); soft != c.soft || revoked != c.revoked || f.Revoked(c.id) != revoked {
				t.Errorf("revoked %v, soft %v", revoked, soft)
			}
		})
	}
}

// TestFeedForgets keeps a revocation until its time is over, and the leeway.
func TestFeedForgets(t *testing.T) {
	t.Parallel()
	f := follow(t, func(c *FeedConfig) { c.Leeway = time.Minute })
	now := f.clock.now()
	f.send(t, f.session(1, time.Hour), f.session(2, 2*time.Hour), f.session(3, -time.Hour),
		revocation.Event{User: "u", Before: now, At: now, Until: now.Add(time.Hour), Reason: revocation.CauseRevoked})
	beat := func() {
		t.Helper()
		f.beCurrent(t)
		before := f.Status().LastContact
		f.clock.advance(2 * time.Minute)
		f.server.stream <- ":\n\n"
		testkit.Eventually(t, "the heartbeat arrives", func() bool { return f.Status().LastContact.After(before) })
	}
	f.clock.advance(time.Hour - 3*time.Minute)
	beat()
	if s := f.Status(); s.Sessions != 2 || s.Users != 1 {
		t.Errorf("too early: %+v", s)
	}
	beat()
	if s := f.Status(); s.Sessions != 1 || s.Users != 0 || f.Revoked(Identity{Session: caveat.SessionID{1}}) {
		t.Errorf("an hour later: %+v", s)
	}
	if !f.Revoked(Identity{Session: caveat.SessionID{2}}) {
		t.Error("forgotten too early")
	}
}

// TestFeedReconnects: the feed resumes after growing pauses, and reports the error in
// between.
func TestFeedReconnects(t *testing.T) {
	t.Parallel()
	f := follow(t)
	f.send(t, f.session(1, time.Hour), f.session(2, time.Hour))
	f.beCurrent(t)
	var pauses []time.Duration
	for range 9 {
		f.server.cut <- struct{}{}
		testkit.Eventually(t, "the end is noticed", func() bool { return !f.Status().Connected })
		if s := f.Status(); s.Current || s.Err == nil || !errors.Is(s.Err, client.ErrUnavailable) {
			t.Fatalf("%+v", s)
		}
		pauses = append(pauses, <-f.waits)
	}
	want := []time.Duration{125, 250, 500, 1000, 2000, 4000, 7500, 7500, 7500}
	for i := range want {
		if least := want[i] * time.Millisecond; pauses[i] < least || pauses[i] > 2*least+time.Millisecond {
			t.Errorf("pauses %v, want %v ms or up to twice as long", pauses, want)
			break
		}
	}
	f.beCurrent(t)
	f.server.cut <- struct{}{}
	if pause := <-f.waits; pause < firstPause/2 || pause > firstPause {
		t.Errorf("after success, a pause of %v", pause)
	}
	f.send(t, f.session(3, time.Hour))
	if got := f.server.positions(); got[0] != "" || slices.ContainsFunc(got[1:], func(p string) bool { return p != "p2" }) {
		t.Errorf("resumed at %q", got)
	}
}

// TestFeedCurrent: OnCurrent is called each time that the feed becomes current, and not
// while it stays so.
func TestFeedCurrent(t *testing.T) {
	t.Parallel()
	times := make(chan struct{}, 10)
	f := follow(t, func(c *FeedConfig) { c.OnCurrent = func() { times <- struct{}{} } })
	for range 3 {
		f.server.stream <- current
		<-times
		f.server.stream <- current
		f.send(t, f.session(1, time.Hour))
		f.server.stream <- "event: gap\ndata: {}\n\n"
		<-f.gaps
		f.server.stream <- current
		<-times
		f.server.cut <- struct{}{}
		<-f.waits
	}
	if n := len(times); n != 0 {
		t.Errorf("%d times more", n)
	}
}

// TestFeedSkips: an event that cannot be understood is skipped with a line in
// the log, and is not requested again.
func TestFeedSkips(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	f := follow(t, func(c *FeedConfig) { c.Log = slog.New(slog.NewTextHandler(&out, nil)) })
	f.send(t, f.session(1, time.Hour))
	f.server.stream <- "event: revocation\nid: p2\ndata: {\"v\":2}\n\n"
	f.server.stream <- event(t, "p3", f.session(2, time.Hour))
	<-f.heard
	if s := f.Status(); s.Skipped != 1 || s.Events != 2 || !s.Connected {
		t.Errorf("%+v", s)
	}
	f.server.stream <- "event: revocation\nid: p4\ndata: {}\n\n"
	testkit.Eventually(t, "the event is skipped", func() bool { return f.Status().Skipped == 2 })
	f.server.cut <- struct{}{}
	<-f.waits
	f.send(t, f.session(3, time.Hour))
	if got := f.server.positions(); !slices.Equal(got, []string{"", "p4"}) {
		t.Errorf("resumed at %q", got)
	}
	if log := out.String(); strings.Count(log, "level=ERROR") != 2 || !strings.Contains(log, "position=p2") {
		t.Errorf("log: %s", log)
	}
}

// TestFeedGap: known revocations stay known, and OnGap is called.
func TestFeedGap(t *testing.T) {
	t.Parallel()
	f := follow(t)
	f.send(t, f.session(1, time.Hour))
	f.beCurrent(t)
	f.server.stream <- "event: gap\ndata: {}\n\n"
	<-f.gaps
	if s := f.Status(); s.Gaps != 1 || s.Current {
		t.Errorf("%+v", s)
	}
	f.send(t, f.session(2, time.Hour))
	f.beCurrent(t)
	for n := byte(1); n <= 2; n++ {
		if !f.Revoked(Identity{Session: caveat.SessionID{n}}) {
			t.Errorf("session %d is forgotten", n)
		}
	}
}

// TestAttackFeedSilence verifies bundles while the feed is silent: they are undecided
// from MaxSilence on, and before the first contact, but sessions known to be
// revoked is refused.
func TestAttackFeedSilence(t *testing.T) {
	t.Parallel()
	f := follow(t, func(c *FeedConfig) { c.MaxSilence = time.Minute })
	w := newWorld(t, func(c *Config) { c.Revocations = f })
	bundle := w.bundle(t, caveat.ModeOpen)
	var id Identity
	verify := func(want error) {
		t.Helper()
		if want != nil {
			w.refused(t, bundle, someClient, want)
			return
		}
		id = w.accepted(t, bundle, someClient)
	}
	verify(ErrUndecided)
	f.send(t, f.session(1, time.Hour))
	verify(ErrUndecided) // there may be more to come
	f.beCurrent(t)
	if err := f.WaitCurrent(context.Background()); err != nil {
		t.Error(err)
	}
	verify(nil)
	f.server.cut <- struct{}{}
	<-f.waits
	f.clock.advance(time.Minute)
	verify(nil)
	if s := f.Status(); s.Staleness != time.Minute {
		t.Errorf("silent for %v", s.Staleness)
	}
	f.clock.advance(time.Millisecond)
	verify(ErrUndecided)
	f.server.stream <- ":\n\n" // a line that lives is not yet news
	verify(ErrUndecided)
	r := f.session(1, time.Hour)
	r.Session = id.Session
	f.send(t, r)
	verify(ErrRevoked)
	f.beCurrent(t)
	verify(ErrRevoked)
}

// TestFeedGoesOn is the default: the feed is silent, and bundles are good until
// they run out.
func TestFeedGoesOn(t *testing.T) {
	t.Parallel()
	f := follow(t)
	w := newWorld(t, func(c *Config) { c.Revocations = f })
	f.clock.advance(1000 * time.Hour)
	w.accepted(t, w.bundle(t, caveat.ModeRotate), someClient)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.WaitCurrent(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitCurrent: %v", err)
	}
	testkit.Eventually(t, "it runs", func() bool { return f.server.connections() == 1 })
	if err := f.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second Run: %v", err)
	}
}

func TestFeedConfig(t *testing.T) {
	t.Parallel()
	client, err := client.New(client.Config{URL: "http://service.example"})
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]FeedConfig{
		"no client":        {},
		"negative silence": {Client: client, MaxSilence: -1},
		"negative leeway":  {Client: client, Leeway: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := NewFeed(cfg); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// TestFeedConcurrent looks up while much is added and forgotten.
func TestFeedConcurrent(t *testing.T) {
	t.Parallel()
	m := newMemory()
	minted := time.Unix(1_790_000_000, 0)
	now := minted
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := byte(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				m.revoked(&Identity{Session: caveat.SessionID{n, n}, User: fmt.Sprint(n), Minted: minted})
			}
		})
	}
	for i := range 20_000 {
		r := revocation.Event{Until: now.Add(time.Minute), Before: now}
		if i%4 == 0 {
			r.User = fmt.Sprint(i % 256)
		} else {
			r.Session = caveat.SessionID{byte(i), byte(i >> 8), 1}
		}
		m.add(&r, 0)
		now = now.Add(10 * time.Millisecond)
		m.tidy(now)
	}
	close(stop)
	wg.Wait()
	m.tidy(now.Add(time.Hour))
	if s, u := m.size(); s != 0 || u != 0 {
		t.Errorf("%d sessions and %d users are left", s, u)
	}
}

// BenchmarkFeedRevoked looks up among as many revocations as there are in an
// hour of a thousand a second.
func BenchmarkFeedRevoked(b *testing.B) {
	for _, n := range []int{0, 3_600_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := filled(n)
			ids := make([]Identity, 1024)
			for i := range ids {
				ids[i] = Identity{Session: numbered(i * 7), User: fmt.Sprintf("@user%d:example.org", i), Minted: time.UnixMilli(int64(i))}
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					m.revoked(&ids[i%len(ids)])
				}
			})
		})
	}
}

func newMemory() *memory {
	m := new(memory)
	m.init(time.Unix(1_790_000_000, 0))
	return m
}

// filled has n sessions and, if there are any, a user.
func filled(n int) *memory {
	m := newMemory()
	for i := range n {
		m.add(&revocation.Event{Session: numbered(i), Until: time.Unix(1<<31, 0)}, 0)
	}
	if n > 0 {
		m.add(&revocation.Event{User: "@user1:example.org", Before: time.UnixMilli(1), Until: time.Unix(1<<31, 0)}, 0)
	}
	return m
}

// numbered spreads numbers as random ids are spread.
func numbered(i int) (id caveat.SessionID) {
	x := uint64(i)*0x9e3779b97f4a7c15 + 1
	for j := range id {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		id[j] = byte(x >> 24)
	}
	return id
}

// TestFeedMemoryIsFlat has two thousand sessions and four hundred users a
// minute revoked, for two hours, and each forgotten after ten minutes: the number of
// entries and their memory depend on the rate and not on how long it
// has gone on. A burst of users leaves nothing behind. It does not run beside
// other tests, whose memory would be counted.
func TestFeedMemoryIsFlat(t *testing.T) {
	const sessions, users, lives, hours = 2000, 400, 10, 2 // a minute; a minute; minutes
	c := &testClock{t: time.Unix(1_790_000_000, 0)}
	service, err := client.New(client.Config{URL: "http://127.0.0.1", APIKey: secret.Bytes("key")})
	if err != nil {
		t.Fatal(err)
	}
	before := heap()
	f, err := NewFeed(FeedConfig{Client: service, now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	minute := func(sessions, users int) {
		for i := range sessions + users {
			now := c.now()
			r := revocation.Event{At: now, Until: now.Add(lives * time.Minute), Reason: revocation.CauseLogout}
			if i < sessions {
				r.Session = numbered(n)
			} else {
				r.User, r.Before = fmt.Sprintf("@user%d:example.org", n), now
			}
			n++
			f.take(client.FeedEvent{Kind: client.FeedRevocation, Position: "x", Revocation: r})
			c.advance(time.Minute / time.Duration(sessions+users))
		}
	}
	var high, low uint64 // after half an hour
	for m := range hours * 60 {
		minute(sessions, users)
		st := f.Status()
		if most := lives + 2; st.Sessions > most*sessions || st.Users > most*users { // one more until all is tidied, and one begun
			t.Fatalf("after %d minutes, %d sessions and %d users", m, st.Sessions, st.Users)
		}
		if m >= 30 && m%15 == 0 {
			now := heap() - before
			if high = max(high, now); low == 0 {
				low = now
			}
		}
	}
	st := f.Status()
	t.Logf("%d sessions and %d users take %.1f MB, %.1f MB at most, %.1f MB after half an hour", st.Sessions, st.Users,
		float64(heap()-before)/1e6, float64(high)/1e6, float64(low)/1e6)
	if high > low*3/2 {
		t.Errorf("the memory grew from %d to %d bytes", low, high)
	}
	minute(1, 10*users*lives)
	for range lives + 2 {
		minute(sessions, users)
	}
	if now := heap() - before; now > high*3/2 {
		t.Errorf("a burst of users leaves %d bytes where there were %d", now, high)
	}
	runtime.KeepAlive(f)
}

// BenchmarkFeedMemory has a thousand revocations a second for some hours, each
// of which matters for one, and reports the memory of an entry at the end.
func BenchmarkFeedMemory(b *testing.B) {
	const lives, rate = 3600, 1000
	for b.Loop() {
		m := newMemory()
		before := heap()
		now, n := time.Unix(1_790_000_000, 0), 0
		var high uint64
		for second := range 3 * lives {
			for range rate {
				m.add(&revocation.Event{Session: numbered(n), Until: now.Add(lives * time.Second)}, 0)
				n++
			}
			now = now.Add(time.Second)
			m.tidy(now)
			if second == lives*3/2 {
				high = heap() - before
			}
		}
		sessions, _ := m.size()
		end := heap() - before
		b.ReportMetric(float64(end)/float64(sessions), "bytes/entry")
		b.ReportMetric(float64(end)/float64(high), "growth")
		b.ReportMetric(float64(sessions), "entries")
		runtime.KeepAlive(m)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // the second one frees pools
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
