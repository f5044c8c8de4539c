package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

func testHomeserver(t *testing.T, f *Fixture) {
	u, other := NewUser(), NewUser()
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
		if got := f.MustLoad(t, u, NewSession()).Homeserver; string(got) != want {
			t.Fatalf("homeserver's record is %q, want %q", got, want)
		}
		if got := f.MustLoad(t, other, NewSession()).Homeserver; got != nil {
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
	f.Clock.Advance(1000 * time.Hour)
	read(strings.Repeat("b", 1000))
	swap(false, "a", "c")
	swap(true, strings.Repeat("b", 1000), "")
	read("")
	swap(true, "", "c")
	read("c")

	// A user may have the homeserver's name, and the other way round.
	twin := store.UserKey{Homeserver: u.Homeserver, User: u.Homeserver}
	f.MustSwap(t, true, twin, store.Change{New: []byte("twin")})
	read("c")
	swap(true, "c", "d")
	if v := f.MustLoad(t, twin, NewSession()); string(v.User) != "twin" || string(v.Homeserver) != "d" {
		t.Errorf("twin is %+v", v)
	}
}

func testHomeserverHandles(t *testing.T, f *Fixture) {
	u, id, other := NewUser(), NewSession(), f.Other(t)
	read := func() string {
		t.Helper()
		v, err := other.Load(t.Context(), u, id, revocation.DeviceTag{})
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

func testRevokes(t *testing.T, f *Fixture) {
	u, id := NewUser(), NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("live")}, store.Change{New: []byte("u")})
	revoke := func(want bool, old, new string) {
		t.Helper()
		got, err := f.Swap(t.Context(), store.Write{User: u, Revocations: Ending(t, u, id), Changes: []store.Change{
			{Session: id, Old: []byte(old), New: []byte(new), Expires: f.Clock.In(time.Hour)},
		}})
		if err != nil || got != want {
			t.Fatalf("Swap gave %v, %v, want %v", got, err, want)
		}
	}
	revoke(false, "dead", "deader")
	revoke(true, "live", "dead")
	revoke(true, "live", "dead")
	revoke(true, "dead", "dead") // to wait for the durability of another write
	f.Expect(t, u, id, "dead", "u")
	f.MustSwap(t, false, u, store.Change{Session: id, Old: []byte("live"), New: []byte("alive")})
	f.Expect(t, u, id, "dead", "u")
}
