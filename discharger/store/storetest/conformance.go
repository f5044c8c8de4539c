package storetest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

// A Fixture is a store under test, with data that no other test uses.
type Fixture struct {
	store.Store
	Clock  *clock                              // the store's
	Other  func(testing.TB) store.Store        // a second handle on the same data, or the same one
	Reopen func(testing.TB, *Fixture)          // closes the store and opens it again
	Forget func(testing.TB, store.UserKey) int // rows or fields that are kept for a user
}

// Run runs the conformance suite over the stores that open returns.
func Run(t *testing.T, open func(testing.TB) *Fixture) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *Fixture)
	}{
		{"absent", testAbsent},
		{"swap", testSwap},
		{"repeat", testRepeat},
		{"one winner", testOneWinner},
		{"no lost update", testNoLostUpdate},
		{"all or none", testAllOrNone},
		{"expiry", testExpiry},
		{"extremes of time", testExtremes},
		{"user outlives", testUserOutlives},
		{"user goes with the last session", testUserGoes},
		{"hostile names", testHostileNames},
		{"list", testList},
		{"sizes", testSizes},
		{"neighbours", testNeighbours},
		{"homeserver", testHomeserver},
		{"homeserver two handles", testHomeserverHandles},
		{"revokes", testRevokes},
		{"invalid", testInvalid},
		{"reopen", testReopen},
		{"context", testContext},
		{"aliasing", testAliasing},
		{"model", testModel},
		{"devices", testDevices},
		{"devices all or none", testDeviceAllOrNone},
		{"device outlives", testDeviceOutlives},
		{"device aliasing", testDeviceAliasing},
		{"many devices", testDeviceMany},
		{"now", testNow},
		{"losses", testLosses},
		{"feed order", testFeedOrder},
		{"feed resume", testFeedResume},
		{"feed gap", testFeedGap},
		{"feed retention", testFeedRetention},
		{"feed reopen", testFeedReopen},
		{"feed concurrent", testFeedConcurrent},
		{"feed await", testFeedAwait},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, open(t))
		})
	}
}

// A Clock stands still unless it is advanced.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

// NewClock returns a clock at the current time.
func NewClock() *clock { return &clock{t: time.Now()} }

// Now returns the time of the clock.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// Advance moves the clock.
func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// In returns a time relative to the clock.
func (c *clock) In(d time.Duration) time.Time { return c.Now().Add(d) }

// NewUser returns a user that no other test uses.
func NewUser() store.UserKey {
	return store.UserKey{
		Homeserver: fmt.Sprintf("h%x.example.org", rand.Uint64()),
		User:       fmt.Sprintf("@u%x:example.org", rand.Uint64()),
	}
}

// NewSession returns a random session.
func NewSession() (id caveat.SessionID) {
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return id
}

// noSession is the zero session, which stands for the record of the user.
var noSession caveat.SessionID

// One returns a write with one change.
func One(u store.UserKey, c store.Change) store.Write {
	return store.Write{User: u, Changes: []store.Change{c}}
}

// MustSwap makes changes and checks whether they were made.
func (f *Fixture) MustSwap(t testing.TB, want bool, u store.UserKey, changes ...store.Change) {
	t.Helper()
	got, err := f.Swap(t.Context(), store.Write{User: u, Changes: changes})
	if err != nil {
		t.Fatalf("Swap: %v", err)
	}
	if got != want {
		t.Fatalf("Swap gave %v, want %v", got, want)
	}
}

// MustLoad loads a session without a device.
func (f *Fixture) MustLoad(t testing.TB, u store.UserKey, id caveat.SessionID) store.View {
	t.Helper()
	v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return v
}

// MustList lists a user's sessions.
func (f *Fixture) MustList(t testing.TB, u store.UserKey) store.Listing {
	t.Helper()
	l, err := f.List(t.Context(), u)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return l
}

// Expect checks both ways of reading a session; "" is none.
func (f *Fixture) Expect(t testing.TB, u store.UserKey, id caveat.SessionID, session, user string) {
	t.Helper()
	v, l := f.MustLoad(t, u, id), f.MustList(t, u)
	if string(v.Session) != session || string(l.Sessions[id]) != session {
		t.Fatalf("session is %q and listed as %q, want %q", v.Session, l.Sessions[id], session)
	}
	if string(v.User) != user || string(l.User) != user {
		t.Fatalf("user is %q and listed as %q, want %q", v.User, l.User, user)
	}
}

func testAbsent(t *testing.T, f *Fixture) {
	u, id := NewUser(), NewSession()
	if v := f.MustLoad(t, u, id); v.Session != nil || v.User != nil || v.Homeserver != nil {
		t.Errorf("Load of nothing gives %+v", v)
	}
	if l := f.MustList(t, u); l.User != nil || len(l.Sessions) != 0 {
		t.Errorf("List of nothing gives %+v", l)
	}
	f.MustSwap(t, false, u, store.Change{Session: id, Old: []byte("a"), New: []byte("b")})
	f.MustSwap(t, false, u, store.Change{Old: []byte("a"), New: []byte("b")})
	f.MustSwap(t, true, u, store.Change{Session: id, Old: []byte("a")}) // as good as done
	f.MustSwap(t, true, u, store.Change{Session: id})
	f.Expect(t, u, id, "", "")
	if err := f.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

func testSwap(t *testing.T, f *Fixture) {
	for _, id := range []caveat.SessionID{noSession, NewSession()} {
		u := NewUser()
		read := func() string {
			if id == noSession {
				return string(f.MustLoad(t, u, NewSession()).User)
			}
			return string(f.MustLoad(t, u, id).Session)
		}
		for i, step := range []struct {
			old, new string
			want     bool
			after    string
		}{
			{"", "a", true, "a"},
			{"", "b", false, "a"},
			{"b", "c", false, "a"},
			{"a", "b", true, "b"},
			{"a", "c", false, "b"},
			{"b", "b", true, "b"},
			{"a", "", false, "b"},
			{"b", "", true, ""},
			{"b", "c", false, ""},
			{"", "d", true, "d"},
		} {
			c := store.Change{Session: id}
			if step.old != "" {
				c.Old = []byte(step.old)
			}
			if step.new != "" {
				c.New = []byte(step.new)
			}
			f.MustSwap(t, step.want, u, c)
			if got := read(); got != step.after {
				t.Fatalf("step %d left %q, want %q", i, got, step.after)
			}
		}
	}
}

// testRepeat sends every write twice, as a client does that lost the reply, and
// once more after the record has changed.
func testRepeat(t *testing.T, f *Fixture) {
	u, id := NewUser(), NewSession()
	writes := [][]store.Change{
		{{Session: id, New: []byte("1")}, {New: []byte("u1")}},
		{{Session: id, Old: []byte("1"), New: []byte("2")}},
		{{Session: id, Old: []byte("2"), New: []byte("3")}, {Old: []byte("u1"), New: []byte("u2")}},
		{{Session: id, Old: []byte("3")}},
	}
	for i, w := range writes {
		f.MustSwap(t, true, u, w...)
		f.MustSwap(t, true, u, w...)
		if i > 0 {
			f.MustSwap(t, false, u, writes[i-1]...)
		}
	}
	f.Expect(t, u, id, "", "u2")
}

func testOneWinner(t *testing.T, f *Fixture) {
	const racers = 64
	for _, old := range []string{"", "before"} {
		u, id := NewUser(), NewSession()
		c := store.Change{Session: id}
		if old != "" {
			f.MustSwap(t, true, u, store.Change{Session: id, New: []byte(old)})
			c.Old = []byte(old)
		}
		var mu sync.Mutex
		var winners []string
		var wg sync.WaitGroup
		for i := range racers {
			c := c
			c.New = fmt.Appendf(nil, "racer %d", i)
			wg.Go(func() {
				ok, err := f.Swap(t.Context(), One(u, c))
				if err != nil {
					t.Errorf("Swap: %v", err)
				}
				if ok {
					mu.Lock()
					defer mu.Unlock()
					winners = append(winners, string(c.New))
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d racers won: %q", len(winners), winners)
		}
		f.Expect(t, u, id, winners[0], "")
	}
}

// testNoLostUpdate increments counters from many goroutines, in a session and
// in the user's record. Each goroutine signs its numbers, so no write can be
// mistaken for another one.
func testNoLostUpdate(t *testing.T, f *Fixture) {
	const counters, each = 16, 4
	u, id := NewUser(), NewSession()
	var wg sync.WaitGroup
	for counter := range counters {
		wg.Go(func() {
			for done := 0; done < each; {
				v, err := f.Load(t.Context(), u, id, revocation.DeviceTag{})
				if err != nil {
					t.Errorf("Load: %v", err)
					return
				}
				if string(v.Session) != string(v.User) {
					t.Errorf("read at two instants: session %q, user %q", v.Session, v.User)
					return
				}
				next := fmt.Appendf(nil, "%d by %d", atoi(v.Session)+1, counter)
				ok, err := f.Swap(t.Context(), store.Write{User: u, Changes: []store.Change{
					{Session: id, Old: v.Session, New: next}, {Old: v.User, New: next},
				}})
				if err != nil {
					t.Errorf("Swap: %v", err)
					return
				}
				if ok {
					done++
				}
			}
		})
	}
	wg.Wait()
	if v := f.MustLoad(t, u, id); atoi(v.Session) != counters*each {
		t.Errorf("counted to %q, want %d", v.Session, counters*each)
	}
}

func atoi(b []byte) (n int) {
	fmt.Sscan(string(b), &n)
	return n
}

func testAllOrNone(t *testing.T, f *Fixture) {
	u, a, b := NewUser(), NewSession(), NewSession()
	f.MustSwap(t, true, u,
		store.Change{Session: a, New: []byte("a1")},
		store.Change{Session: b, New: []byte("b1")},
		store.Change{New: []byte("u1")})
	for _, wrong := range []caveat.SessionID{a, b, noSession} {
		changes := []store.Change{
			{Session: a, Old: []byte("a1"), New: []byte("a2")},
			{Session: b, Old: []byte("b1")},
			{Old: []byte("u1"), New: []byte("u2")},
		}
		for i := range changes {
			if changes[i].Session == wrong {
				changes[i].Old = []byte("something else")
				changes[i].New = []byte("new")
			}
		}
		f.MustSwap(t, false, u, changes...)
		f.Expect(t, u, a, "a1", "u1")
		f.Expect(t, u, b, "b1", "u1")
	}
	// Half of it is there already: that half agrees, the rest is made to.
	f.MustSwap(t, true, u, store.Change{Session: a, Old: []byte("a1"), New: []byte("a2")})
	f.MustSwap(t, true, u,
		store.Change{Session: a, Old: []byte("a1"), New: []byte("a2")},
		store.Change{Session: b, Old: []byte("b1")},
		store.Change{Old: []byte("u1"), New: []byte("u2")})
	f.Expect(t, u, a, "a2", "u2")
	f.Expect(t, u, b, "", "u2")
}

func testExpiry(t *testing.T, f *Fixture) {
	u, short, long, ever := NewUser(), NewSession(), NewSession(), NewSession()
	f.MustSwap(t, true, u,
		store.Change{Session: short, New: []byte("short"), Expires: f.Clock.In(time.Hour)},
		store.Change{Session: long, New: []byte("long"), Expires: f.Clock.In(3 * time.Hour)},
		store.Change{Session: ever, New: []byte("ever")})
	f.Clock.Advance(time.Hour - time.Millisecond) // never early
	f.Expect(t, u, short, "short", "")
	f.Clock.Advance(time.Second + time.Millisecond)
	f.Expect(t, u, short, "", "")
	f.Expect(t, u, long, "long", "")
	f.Expect(t, u, ever, "ever", "")

	// An expired record is absent.
	f.MustSwap(t, false, u, store.Change{Session: short, Old: []byte("short"), New: []byte("again")})
	f.MustSwap(t, true, u, store.Change{Session: short, New: []byte("again"), Expires: f.Clock.In(time.Hour)})
	f.Expect(t, u, short, "again", "")

	// The same record, kept longer.
	f.MustSwap(t, true, u, store.Change{Session: short, Old: []byte("again"), New: []byte("again"), Expires: f.Clock.In(5 * time.Hour)})
	f.Clock.Advance(4 * time.Hour)
	f.Expect(t, u, short, "again", "")
	f.Expect(t, u, long, "", "")
	f.MustSwap(t, true, u, store.Change{Session: ever, Old: []byte("ever"), New: []byte("ever"), Expires: f.Clock.In(time.Hour)})
	f.Clock.Advance(2 * time.Hour)
	f.Expect(t, u, short, "", "")
	f.Expect(t, u, ever, "", "")
}

func testExtremes(t *testing.T, f *Fixture) {
	u, late, early := NewUser(), NewSession(), NewSession()
	f.MustSwap(t, true, u, store.Change{Session: late, New: []byte("late"), Expires: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)})
	f.Expect(t, u, late, "late", "")
	f.MustSwap(t, true, u, store.Change{Session: early, New: []byte("early"), Expires: time.Date(1912, 1, 1, 0, 0, 0, 0, time.UTC)})
	f.Expect(t, u, early, "", "")
	f.MustSwap(t, true, u, store.Change{Session: late, Old: []byte("late"), New: []byte("late"), Expires: f.Clock.In(-time.Hour)})
	f.Expect(t, u, late, "", "")
}

func testUserOutlives(t *testing.T, f *Fixture) {
	u, id, other := NewUser(), NewSession(), NewSession()
	f.MustSwap(t, true, u,
		store.Change{New: []byte("generation 7"), Expires: f.Clock.In(time.Minute)},
		store.Change{Session: id, New: []byte("session"), Expires: f.Clock.In(100 * time.Hour)})
	f.Clock.Advance(50 * time.Hour)
	f.Expect(t, u, id, "session", "generation 7")
	f.Expect(t, u, other, "", "generation 7")
	f.MustSwap(t, false, u, store.Change{New: []byte("generation 1")})
	f.MustSwap(t, true, u, store.Change{Session: other, New: []byte("new"), Expires: f.Clock.In(100 * time.Hour)})
	f.Expect(t, u, other, "new", "generation 7")
	f.MustSwap(t, true, u, store.Change{Session: id, Old: []byte("session")})
	f.Clock.Advance(99 * time.Hour)
	f.MustSwap(t, true, u, store.Change{Old: []byte("generation 7"), New: []byte("generation 8"), Expires: f.Clock.In(time.Minute)})
	f.Expect(t, u, other, "new", "generation 8")
}

// testUserGoes lets real time pass, since Redis expires by its own clock.
func testUserGoes(t *testing.T, f *Fixture) {
	soon := f.Clock.In(100 * time.Millisecond)
	alone, with := NewUser(), NewUser()
	f.MustSwap(t, true, alone, store.Change{New: []byte("user"), Expires: soon})
	f.MustSwap(t, true, with, store.Change{New: []byte("user"), Expires: soon},
		store.Change{Session: NewSession(), New: bytes.Repeat([]byte("s"), 100), Expires: soon})
	f.Clock.Advance(3 * time.Second)
	redistest.Eventually(t, "both users are forgotten", func() bool {
		return f.Forget(t, alone) == 0 && f.Forget(t, with) == 0
	})
	if l := f.MustList(t, alone); l.User != nil {
		t.Errorf("expired user is %q", l.User)
	}
	if l := f.MustList(t, with); l.User != nil {
		t.Errorf("expired user is %q", l.User)
	}
}
