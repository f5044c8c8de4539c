package storetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

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
