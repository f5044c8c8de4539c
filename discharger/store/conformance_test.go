package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
)

// A fixture is a store to try, with data that nobody else is using.
type fixture struct {
	discharger.Store
	clock  *clock                                   // the store's
	other  func(testing.TB) discharger.Store        // a second handle on the same data, or the same one
	reopen func(testing.TB, *fixture)               // closes the store and opens it again
	forget func(testing.TB, discharger.UserKey) int // rows or fields that are kept for a user
}

// conformance runs every case over what open opens. It is all that a store has
// to pass, whatever it is made of.
func conformance(t *testing.T, open func(testing.TB) *fixture) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *fixture)
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
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, open(t))
		})
	}
}

// A clock stands still until it is told otherwise.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *clock) in(d time.Duration) time.Time { return c.now().Add(d) }

// someone is a user that no other test knows.
func someone() discharger.UserKey {
	return discharger.UserKey{
		Homeserver: fmt.Sprintf("h%x.example.org", rand.Uint64()),
		User:       fmt.Sprintf("@u%x:example.org", rand.Uint64()),
	}
}

func newSession() (id caveat.SessionID) {
	for i := range id {
		id[i] = byte(rand.Uint32())
	}
	return id
}

// nobody is the session that stands for the user's own record.
var nobody caveat.SessionID

func one(u discharger.UserKey, c discharger.Change) discharger.Write {
	return discharger.Write{User: u, Changes: []discharger.Change{c}}
}

func (f *fixture) swap(t testing.TB, want bool, u discharger.UserKey, changes ...discharger.Change) {
	t.Helper()
	got, err := f.Swap(t.Context(), discharger.Write{User: u, Changes: changes})
	if err != nil {
		t.Fatalf("Swap: %v", err)
	}
	if got != want {
		t.Fatalf("Swap gave %v, want %v", got, want)
	}
}

func (f *fixture) load(t testing.TB, u discharger.UserKey, id caveat.SessionID) discharger.View {
	t.Helper()
	v, err := f.Load(t.Context(), u, id)
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return v
}

func (f *fixture) list(t testing.TB, u discharger.UserKey) discharger.Listing {
	t.Helper()
	l, err := f.List(t.Context(), u)
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	return l
}

// expect checks both ways of reading a session; "" is none.
func (f *fixture) expect(t testing.TB, u discharger.UserKey, id caveat.SessionID, session, user string) {
	t.Helper()
	v, l := f.load(t, u, id), f.list(t, u)
	if string(v.Session) != session || string(l.Sessions[id]) != session {
		t.Fatalf("session is %q and listed as %q, want %q", v.Session, l.Sessions[id], session)
	}
	if string(v.User) != user || string(l.User) != user {
		t.Fatalf("user is %q and listed as %q, want %q", v.User, l.User, user)
	}
}

func testAbsent(t *testing.T, f *fixture) {
	u, id := someone(), newSession()
	if v := f.load(t, u, id); v.Session != nil || v.User != nil || v.Homeserver != nil {
		t.Errorf("Load of nothing gives %+v", v)
	}
	if l := f.list(t, u); l.User != nil || len(l.Sessions) != 0 {
		t.Errorf("List of nothing gives %+v", l)
	}
	f.swap(t, false, u, discharger.Change{Session: id, Old: []byte("a"), New: []byte("b")})
	f.swap(t, false, u, discharger.Change{Old: []byte("a"), New: []byte("b")})
	f.swap(t, true, u, discharger.Change{Session: id, Old: []byte("a")}) // as good as done
	f.swap(t, true, u, discharger.Change{Session: id})
	f.expect(t, u, id, "", "")
	if err := f.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

func testSwap(t *testing.T, f *fixture) {
	for _, id := range []caveat.SessionID{nobody, newSession()} {
		u := someone()
		read := func() string {
			if id == nobody {
				return string(f.load(t, u, newSession()).User)
			}
			return string(f.load(t, u, id).Session)
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
			c := discharger.Change{Session: id}
			if step.old != "" {
				c.Old = []byte(step.old)
			}
			if step.new != "" {
				c.New = []byte(step.new)
			}
			f.swap(t, step.want, u, c)
			if got := read(); got != step.after {
				t.Fatalf("step %d left %q, want %q", i, got, step.after)
			}
		}
	}
}

// testRepeat sends every write twice, as someone does who did not hear the
// answer, and once more when the record has moved on.
func testRepeat(t *testing.T, f *fixture) {
	u, id := someone(), newSession()
	writes := [][]discharger.Change{
		{{Session: id, New: []byte("1")}, {New: []byte("u1")}},
		{{Session: id, Old: []byte("1"), New: []byte("2")}},
		{{Session: id, Old: []byte("2"), New: []byte("3")}, {Old: []byte("u1"), New: []byte("u2")}},
		{{Session: id, Old: []byte("3")}},
	}
	for i, w := range writes {
		f.swap(t, true, u, w...)
		f.swap(t, true, u, w...)
		if i > 0 {
			f.swap(t, false, u, writes[i-1]...)
		}
	}
	f.expect(t, u, id, "", "u2")
}

func testOneWinner(t *testing.T, f *fixture) {
	const racers = 64
	for _, old := range []string{"", "before"} {
		u, id := someone(), newSession()
		c := discharger.Change{Session: id}
		if old != "" {
			f.swap(t, true, u, discharger.Change{Session: id, New: []byte(old)})
			c.Old = []byte(old)
		}
		var mu sync.Mutex
		var winners []string
		var wg sync.WaitGroup
		for i := range racers {
			c := c
			c.New = fmt.Appendf(nil, "racer %d", i)
			wg.Go(func() {
				ok, err := f.Swap(t.Context(), one(u, c))
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
		f.expect(t, u, id, winners[0], "")
	}
}

// testNoLostUpdate counts up from many goroutines, in a session and in the
// user's record at once. Each signs its numbers, so that nobody can take
// someone else's for their own.
func testNoLostUpdate(t *testing.T, f *fixture) {
	const counters, each = 16, 4
	u, id := someone(), newSession()
	var wg sync.WaitGroup
	for counter := range counters {
		wg.Go(func() {
			for done := 0; done < each; {
				v, err := f.Load(t.Context(), u, id)
				if err != nil {
					t.Errorf("Load: %v", err)
					return
				}
				if string(v.Session) != string(v.User) {
					t.Errorf("read at two instants: session %q, user %q", v.Session, v.User)
					return
				}
				next := fmt.Appendf(nil, "%d by %d", atoi(v.Session)+1, counter)
				ok, err := f.Swap(t.Context(), discharger.Write{User: u, Changes: []discharger.Change{
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
	if v := f.load(t, u, id); atoi(v.Session) != counters*each {
		t.Errorf("counted to %q, want %d", v.Session, counters*each)
	}
}

func atoi(b []byte) (n int) {
	fmt.Sscan(string(b), &n)
	return n
}

func testAllOrNone(t *testing.T, f *fixture) {
	u, a, b := someone(), newSession(), newSession()
	f.swap(t, true, u,
		discharger.Change{Session: a, New: []byte("a1")},
		discharger.Change{Session: b, New: []byte("b1")},
		discharger.Change{New: []byte("u1")})
	for _, wrong := range []caveat.SessionID{a, b, nobody} {
		changes := []discharger.Change{
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
		f.swap(t, false, u, changes...)
		f.expect(t, u, a, "a1", "u1")
		f.expect(t, u, b, "b1", "u1")
	}
	// Half of it is there already: that half agrees, the rest is made to.
	f.swap(t, true, u, discharger.Change{Session: a, Old: []byte("a1"), New: []byte("a2")})
	f.swap(t, true, u,
		discharger.Change{Session: a, Old: []byte("a1"), New: []byte("a2")},
		discharger.Change{Session: b, Old: []byte("b1")},
		discharger.Change{Old: []byte("u1"), New: []byte("u2")})
	f.expect(t, u, a, "a2", "u2")
	f.expect(t, u, b, "", "u2")
}

func testExpiry(t *testing.T, f *fixture) {
	u, short, long, ever := someone(), newSession(), newSession(), newSession()
	f.swap(t, true, u,
		discharger.Change{Session: short, New: []byte("short"), Expires: f.clock.in(time.Hour)},
		discharger.Change{Session: long, New: []byte("long"), Expires: f.clock.in(3 * time.Hour)},
		discharger.Change{Session: ever, New: []byte("ever")})
	f.clock.advance(time.Hour - time.Millisecond) // never early
	f.expect(t, u, short, "short", "")
	f.clock.advance(time.Second + time.Millisecond)
	f.expect(t, u, short, "", "")
	f.expect(t, u, long, "long", "")
	f.expect(t, u, ever, "ever", "")

	// What has expired is no record.
	f.swap(t, false, u, discharger.Change{Session: short, Old: []byte("short"), New: []byte("again")})
	f.swap(t, true, u, discharger.Change{Session: short, New: []byte("again"), Expires: f.clock.in(time.Hour)})
	f.expect(t, u, short, "again", "")

	// The same record, kept longer.
	f.swap(t, true, u, discharger.Change{Session: short, Old: []byte("again"), New: []byte("again"), Expires: f.clock.in(5 * time.Hour)})
	f.clock.advance(4 * time.Hour)
	f.expect(t, u, short, "again", "")
	f.expect(t, u, long, "", "")
	f.swap(t, true, u, discharger.Change{Session: ever, Old: []byte("ever"), New: []byte("ever"), Expires: f.clock.in(time.Hour)})
	f.clock.advance(2 * time.Hour)
	f.expect(t, u, short, "", "")
	f.expect(t, u, ever, "", "")
}

func testExtremes(t *testing.T, f *fixture) {
	u, late, early := someone(), newSession(), newSession()
	f.swap(t, true, u, discharger.Change{Session: late, New: []byte("late"), Expires: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)})
	f.expect(t, u, late, "late", "")
	f.swap(t, true, u, discharger.Change{Session: early, New: []byte("early"), Expires: time.Date(1912, 1, 1, 0, 0, 0, 0, time.UTC)})
	f.expect(t, u, early, "", "")
	f.swap(t, true, u, discharger.Change{Session: late, Old: []byte("late"), New: []byte("late"), Expires: f.clock.in(-time.Hour)})
	f.expect(t, u, late, "", "")
}

func testUserOutlives(t *testing.T, f *fixture) {
	u, id, other := someone(), newSession(), newSession()
	f.swap(t, true, u,
		discharger.Change{New: []byte("generation 7"), Expires: f.clock.in(time.Minute)},
		discharger.Change{Session: id, New: []byte("session"), Expires: f.clock.in(100 * time.Hour)})
	f.clock.advance(50 * time.Hour)
	f.expect(t, u, id, "session", "generation 7")
	f.expect(t, u, other, "", "generation 7")
	f.swap(t, false, u, discharger.Change{New: []byte("generation 1")})
	f.swap(t, true, u, discharger.Change{Session: other, New: []byte("new"), Expires: f.clock.in(100 * time.Hour)})
	f.expect(t, u, other, "new", "generation 7")
	f.swap(t, true, u, discharger.Change{Session: id, Old: []byte("session")})
	f.clock.advance(99 * time.Hour)
	f.swap(t, true, u, discharger.Change{Old: []byte("generation 7"), New: []byte("generation 8"), Expires: f.clock.in(time.Minute)})
	f.expect(t, u, other, "new", "generation 8")
}

// testUserGoes lets real time pass, since that is what Redis goes by.
func testUserGoes(t *testing.T, f *fixture) {
	soon := time.Now().Add(100 * time.Millisecond)
	alone, with := someone(), someone()
	f.swap(t, true, alone, discharger.Change{New: []byte("user"), Expires: soon})
	f.swap(t, true, with, discharger.Change{New: []byte("user"), Expires: soon},
		discharger.Change{Session: newSession(), New: bytes.Repeat([]byte("s"), 100), Expires: soon})
	f.clock.advance(3 * time.Second)
	eventually(t, "both users are forgotten", func() bool {
		return f.forget(t, alone) == 0 && f.forget(t, with) == 0
	})
	if l := f.list(t, alone); l.User != nil {
		t.Errorf("expired user is %q", l.User)
	}
	if l := f.list(t, with); l.User != nil {
		t.Errorf("expired user is %q", l.User)
	}
}

// eventually waits for what only real time brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not after 20 seconds: %s", what)
		}
	}
}

func testHostileNames(t *testing.T, f *fixture) {
	names := []string{
		"", "a", "b", "ab", "{", "}", "{a}", "a}", "{}", "ds{aa}", "\x00", "a\x00", "\x00a", "\x00\x01a", "\n", "*", "0", "1",
		"\xff", "\xff\xfe", "\xc3\x28", "ä", strings.Repeat("\xff", 255), strings.Repeat("\x00", 255), strings.Repeat("{", 255),
		strings.Repeat("ab", 127), "homeserver:a", "store:",
	}
	id := newSession()
	record := func(u discharger.UserKey) []byte { return fmt.Appendf(nil, "%q of %q", u.User, u.Homeserver) }
	var users []discharger.UserKey
	for _, h := range names {
		for _, n := range names {
			users = append(users, discharger.UserKey{Homeserver: h, User: n})
		}
	}
	for _, u := range users {
		f.swap(t, true, u, discharger.Change{Session: id, New: record(u)})
	}
	for _, u := range users {
		if got := f.load(t, u, id).Session; !bytes.Equal(got, record(u)) {
			t.Fatalf("session of %q has record %q", u, got)
		}
		if l := f.list(t, u); len(l.Sessions) != 1 {
			t.Fatalf("%q has %d sessions", u, len(l.Sessions))
		}
	}
	for _, u := range users[:len(users)/2] {
		f.swap(t, true, u, discharger.Change{Session: id, Old: record(u)})
	}
	for i, u := range users {
		if got := f.load(t, u, id).Session; (got != nil) != (i >= len(users)/2) {
			t.Fatalf("after others were removed, session of %q has record %q", u, got)
		}
	}
	for _, u := range users[len(users)/2:] {
		f.swap(t, true, u, discharger.Change{Session: id, Old: record(u)})
	}
}

func testList(t *testing.T, f *fixture) {
	for _, n := range []int{1, 3, 30, 600} {
		u := someone()
		want := make(map[caveat.SessionID][]byte)
		for i := range n {
			id, record := newSession(), bytes.Repeat([]byte{byte(i)}, 1+rand.IntN(150))
			c := discharger.Change{Session: id, New: record, Expires: f.clock.in(time.Hour)}
			if i%3 == 1 {
				c.Expires = f.clock.in(-time.Hour)
			} else {
				want[id] = record
			}
			f.swap(t, true, u, c)
		}
		got := f.list(t, u)
		if !maps.EqualFunc(got.Sessions, want, bytes.Equal) {
			t.Fatalf("of %d sessions %d are listed, want %d", n, len(got.Sessions), len(want))
		}
		if got.User != nil {
			t.Fatalf("user without a record is %q", got.User)
		}
		for id, record := range want {
			f.expect(t, u, id, string(record), "")
		}
	}
}

// testSizes takes a record through all sizes, back and forth.
func testSizes(t *testing.T, f *fixture) {
	u, id := someone(), newSession()
	var session, user []byte
	set := func(n int) {
		t.Helper()
		s := bytes.Repeat([]byte{byte(n), 0, 0xff}, n)[:n]
		r := append(bytes.Clone(s), '!')
		f.swap(t, true, u, discharger.Change{Session: id, Old: session, New: s}, discharger.Change{Old: user, New: r})
		session, user = s, r
		f.expect(t, u, id, string(s), string(r))
	}
	for n := 1; n <= 140; n++ {
		set(n)
	}
	for n := 140; n > 0; n -= 7 {
		set(n)
	}
	for range 100 {
		set(1 + rand.IntN(300))
	}
	for _, n := range []int{64<<10 - 1, 1, 10_000, 59, 60} {
		set(n)
	}
}

// testNeighbours lets a user's sessions come and go whose ids are as alike as
// ids can be.
func testNeighbours(t *testing.T, f *fixture) {
	u := someone()
	want := make(map[caveat.SessionID][]byte)
	var sessions []caveat.SessionID
	for i := range 12 {
		id := caveat.SessionID{0: 7, 15: byte(i)}
		if i%3 == 0 {
			id[0] += 126 // the same place for a second piece
		}
		sessions = append(sessions, id)
	}
	for i := range 300 {
		id := sessions[rand.IntN(len(sessions))]
		var record []byte
		if rand.IntN(4) > 0 {
			record = bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 1+rand.IntN(60))
		}
		f.swap(t, true, u, discharger.Change{Session: id, Old: want[id], New: record})
		if want[id] = record; record == nil {
			delete(want, id)
		}
		if got := f.list(t, u); !maps.EqualFunc(got.Sessions, want, bytes.Equal) {
			t.Fatalf("after %d changes the sessions are %v, want %v", i+1, got.Sessions, want)
		}
	}
	for _, id := range sessions {
		f.expect(t, u, id, string(want[id]), "")
	}
}

func testHomeserver(t *testing.T, f *fixture) {
	u, other := someone(), someone()
	swap := func(want bool, old, new string) {
		t.Helper()
		var o, n []byte
		if old != "" {
			o = []byte(old)
		}
		if new != "" {
			n = []byte(new)
		}
		got, err := f.SwapHomeserver(t.Context(), u.Homeserver, o, n)
		if err != nil || got != want {
			t.Fatalf("SwapHomeserver(%q, %q) gave %v, %v, want %v", old, new, got, err, want)
		}
	}
	read := func(want string) {
		t.Helper()
		if got := f.load(t, u, newSession()).Homeserver; string(got) != want {
			t.Fatalf("homeserver's record is %q, want %q", got, want)
		}
		if got := f.load(t, other, newSession()).Homeserver; got != nil {
			t.Fatalf("another homeserver's record is %q", got)
		}
	}
	read("")
	swap(false, "a", "b")
	swap(true, "", "a")
	read("a")
	swap(true, "", "a") // again
	swap(false, "", "b")
	read("a")
	swap(true, "a", strings.Repeat("b", 1000))
	f.clock.advance(1000 * time.Hour)
	read(strings.Repeat("b", 1000))
	swap(false, "a", "c")
	swap(true, strings.Repeat("b", 1000), "")
	read("")
	swap(true, "", "c")
	read("c")

	// A user may have the homeserver's name, and the other way round.
	twin := discharger.UserKey{Homeserver: u.Homeserver, User: u.Homeserver}
	f.swap(t, true, twin, discharger.Change{New: []byte("twin")})
	read("c")
	swap(true, "c", "d")
	if v := f.load(t, twin, newSession()); string(v.User) != "twin" || string(v.Homeserver) != "d" {
		t.Errorf("twin is %+v", v)
	}
}

func testHomeserverHandles(t *testing.T, f *fixture) {
	u, id, other := someone(), newSession(), f.other(t)
	read := func() string {
		t.Helper()
		v, err := other.Load(t.Context(), u, id)
		if err != nil {
			t.Fatalf("Load: %v", err)
		}
		return string(v.Homeserver)
	}
	var old []byte
	for i := range 5 {
		record := fmt.Appendf(nil, "generation %d", i)
		if got := read(); got != string(old) { // and has it in a cache from here on
			t.Fatalf("before: %q", got)
		}
		if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, old, record); err != nil || !ok {
			t.Fatalf("SwapHomeserver: %v, %v", ok, err)
		}
		if got := read(); got != string(record) {
			t.Fatalf("after SwapHomeserver, another handle reads %q, want %q", got, record)
		}
		old = record
	}
}

func testRevokes(t *testing.T, f *fixture) {
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: []byte("live")}, discharger.Change{New: []byte("u")})
	revoke := func(want bool, old, new string) {
		t.Helper()
		got, err := f.Swap(t.Context(), discharger.Write{User: u, Revokes: true, Changes: []discharger.Change{
			{Session: id, Old: []byte(old), New: []byte(new), Expires: f.clock.in(time.Hour)},
		}})
		if err != nil || got != want {
			t.Fatalf("Swap gave %v, %v, want %v", got, err, want)
		}
	}
	revoke(false, "dead", "deader")
	revoke(true, "live", "dead")
	revoke(true, "live", "dead")
	revoke(true, "dead", "dead") // to be sure that someone else's is durable
	f.expect(t, u, id, "dead", "u")
	f.swap(t, false, u, discharger.Change{Session: id, Old: []byte("live"), New: []byte("alive")})
	f.expect(t, u, id, "dead", "u")
}

func testInvalid(t *testing.T, f *fixture) {
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
	huge := make([]byte, 64<<10+1)
	name := strings.Repeat("n", 4<<10+1)
	for what, w := range map[string]discharger.Write{
		"nothing":       {User: u},
		"empty old":     one(u, discharger.Change{Session: id, Old: []byte{}, New: []byte("b")}),
		"empty new":     one(u, discharger.Change{Session: id, Old: []byte("a"), New: []byte{}}),
		"huge":          one(u, discharger.Change{Session: id, Old: []byte("a"), New: huge}),
		"user name":     one(discharger.UserKey{Homeserver: u.Homeserver, User: name}, discharger.Change{Session: id, New: []byte("b")}),
		"hs name":       one(discharger.UserKey{Homeserver: name, User: u.User}, discharger.Change{Session: id, New: []byte("b")}),
		"twice":         {User: u, Changes: []discharger.Change{{Session: id, Old: []byte("a"), New: []byte("b")}, {Session: id, Old: []byte("b"), New: []byte("c")}}},
		"twice, a user": {User: u, Changes: []discharger.Change{{New: []byte("b")}, {New: []byte("b")}}},
	} {
		if ok, err := f.Swap(t.Context(), w); err == nil || ok {
			t.Errorf("%s: Swap gave %v, %v", what, ok, err)
		}
	}
	f.expect(t, u, id, "a", "")
	mine := one(u, discharger.Change{New: []byte("mine")})
	if ok, err := f.Swap(t.Context(), mine); !ok || err != nil {
		t.Errorf("Swap of the user's record gave %v, %v", ok, err)
	}
	if v, err := f.Load(t.Context(), u, nobody); err != nil || v.Session != nil || string(v.User) != "mine" {
		t.Errorf("Load of no session gave %+v, %v", v, err)
	}
	if _, err := f.Load(t.Context(), discharger.UserKey{User: name}, id); err == nil {
		t.Error("Load takes any name")
	}
	if _, err := f.List(t.Context(), discharger.UserKey{Homeserver: name}); err == nil {
		t.Error("List takes any name")
	}
	for _, c := range []struct {
		name     string
		old, new []byte
	}{{name, nil, []byte("a")}, {u.Homeserver, []byte{}, []byte("a")}, {u.Homeserver, nil, []byte{}}, {u.Homeserver, nil, huge}} {
		if ok, err := f.SwapHomeserver(t.Context(), c.name, c.old, c.new); err == nil || ok {
			t.Errorf("SwapHomeserver gave %v, %v", ok, err)
		}
	}
}

func testReopen(t *testing.T, f *fixture) {
	u, a, b := someone(), newSession(), newSession()
	f.swap(t, true, u,
		discharger.Change{Session: a, New: bytes.Repeat([]byte("a"), 90), Expires: f.clock.in(time.Hour)},
		discharger.Change{Session: b, New: []byte("b"), Expires: f.clock.in(3 * time.Hour)},
		discharger.Change{New: []byte("u")})
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("h")); err != nil || !ok {
		t.Fatalf("SwapHomeserver: %v, %v", ok, err)
	}
	f.reopen(t, f)
	f.expect(t, u, a, strings.Repeat("a", 90), "u")
	f.expect(t, u, b, "b", "u")
	if got := f.load(t, u, b).Homeserver; string(got) != "h" {
		t.Errorf("homeserver's record is %q", got)
	}
	f.clock.advance(2 * time.Hour)
	f.expect(t, u, a, "", "u")
	f.expect(t, u, b, "b", "u")
	if err := f.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

func testContext(t *testing.T, f *fixture) {
	u, id := someone(), newSession()
	f.swap(t, true, u, discharger.Change{Session: id, New: []byte("a")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errLoad := f.Load(ctx, u, id)
	_, errList := f.List(ctx, u)
	_, errSwap := f.Swap(ctx, one(u, discharger.Change{Session: id, Old: []byte("a"), New: []byte("b")}))
	_, errHome := f.SwapHomeserver(ctx, u.Homeserver, nil, []byte("b"))
	for i, err := range []error{errLoad, errList, errSwap, errHome, f.Ready(ctx)} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, discharger.ErrStoreLost) {
			t.Errorf("method %d with a context that has ended: %v", i, err)
		}
	}
	f.expect(t, u, id, "a", "")
}

func testAliasing(t *testing.T, f *fixture) {
	u, id := someone(), newSession()
	record := []byte("session")
	f.swap(t, true, u, discharger.Change{Session: id, New: record}, discharger.Change{New: []byte("user")})
	if _, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("home")); err != nil {
		t.Fatal(err)
	}
	copy(record, "!!!!!!!")
	for range 2 {
		v, l := f.load(t, u, id), f.list(t, u)
		if string(v.Session) != "session" || string(v.User) != "user" || string(v.Homeserver) != "home" {
			t.Fatalf("Load gives %q", v)
		}
		if string(l.User) != "user" || string(l.Sessions[id]) != "session" {
			t.Fatalf("List gives %q", l)
		}
		for _, b := range [][]byte{v.Session, v.User, v.Homeserver, l.User, l.Sessions[id]} {
			copy(b, bytes.Repeat([]byte("?"), len(b)))
		}
	}
}

// testModel compares a store with the obvious implementation.
func testModel(t *testing.T, f *fixture) {
	rapid.Check(t, func(r *rapid.T) {
		u, now := someone(), f.clock.now()
		sessions := []caveat.SessionID{nobody, {0: 1}, {0: 1, 15: 1}, {0: 127}, {0: 2}, {0: 254}}
		type row struct {
			record  []byte
			expires time.Time
		}
		model := make(map[caveat.SessionID]row)
		current := func(id caveat.SessionID) []byte {
			m, ok := model[id]
			if !ok || id != nobody && !m.expires.IsZero() && !now.Before(m.expires) {
				return nil
			}
			return m.record
		}
		records := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 1, 130), rapid.SliceOfN(rapid.ByteRange(0, 1), 1, 1))
		for range rapid.IntRange(1, 25).Draw(r, "writes") {
			w := discharger.Write{User: u, Revokes: rapid.Bool().Draw(r, "revokes")}
			ids := slices.Clone(sessions)
			rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			want := true
			for _, id := range ids[:rapid.IntRange(1, 3).Draw(r, "changes")] {
				c := discharger.Change{Session: id, Old: current(id), New: records.Draw(r, "new")}
				if rapid.IntRange(0, 9).Draw(r, "wrong") == 0 {
					c.Old = records.Draw(r, "old")
				}
				if hours := rapid.IntRange(-1, 3).Draw(r, "hours"); hours != 0 && id != nobody {
					c.Expires = now.Add(time.Duration(hours) * time.Hour)
				}
				w.Changes = append(w.Changes, c)
				want = want && (bytes.Equal(current(id), c.Old) || bytes.Equal(current(id), c.New))
			}
			got, err := f.Swap(t.Context(), w)
			if err != nil || got != want {
				r.Fatalf("Swap(%+v) gave %v, %v, want %v", w, got, err, want)
			}
			for _, c := range w.Changes {
				if !want || !bytes.Equal(current(c.Session), c.Old) {
					continue
				}
				delete(model, c.Session)
				if c.New != nil {
					model[c.Session] = row{c.New, c.Expires}
				}
			}
			for _, id := range sessions[1:] {
				f.expect(t, u, id, string(current(id)), string(current(nobody)))
			}
		}
	})
}
