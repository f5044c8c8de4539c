// Package storetest is the conformance suite of stores, and the helpers of their tests.
package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
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

// Awake runs f and returns for how long this process was there to run it: a
// machine that stands still for a while is not counted, since of the ticks that
// are missed only one comes late.
func Awake(f func()) time.Duration {
	const step = 10 * time.Millisecond
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for steps := time.Duration(0); ; steps++ {
		select {
		case <-done:
			return steps * step
		case <-tick.C:
		}
	}
}

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
