package storetest

import (
	"fmt"
	"sync"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

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
