package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

func testHostileNames(t *testing.T, f *Fixture) {
	names := []string{
		"", "a", "b", "ab", "{", "}", "{a}", "a}", "{}", "ds{aa}", "\x00", "a\x00", "\x00a", "\x00\x01a", "\n", "*", "0", "1",
		"\xff", "\xff\xfe", "\xc3\x28", "ä", strings.Repeat("\xff", 255), strings.Repeat("\x00", 255), strings.Repeat("{", 255),
		strings.Repeat("ab", 127), "homeserver:a", "store:",
	}
	id := NewSession()
	record := func(u store.UserKey) []byte { return fmt.Appendf(nil, "%q of %q", u.User, u.Homeserver) }
	var users []store.UserKey
	for _, h := range names {
		for _, n := range names {
			users = append(users, store.UserKey{Homeserver: h, User: n})
		}
	}
	for _, u := range users {
		f.MustSwap(t, true, u, store.Change{Session: id, New: record(u)})
	}
	for _, u := range users {
		if got := f.MustLoad(t, u, id).Session; !bytes.Equal(got, record(u)) {
			t.Fatalf("session of %q has record %q", u, got)
		}
		if l := f.MustList(t, u); len(l.Sessions) != 1 {
			t.Fatalf("%q has %d sessions", u, len(l.Sessions))
		}
	}
	for _, u := range users[:len(users)/2] {
		f.MustSwap(t, true, u, store.Change{Session: id, Old: record(u)})
	}
	for i, u := range users {
		if got := f.MustLoad(t, u, id).Session; (got != nil) != (i >= len(users)/2) {
			t.Fatalf("after others were removed, session of %q has record %q", u, got)
		}
	}
	for _, u := range users[len(users)/2:] {
		f.MustSwap(t, true, u, store.Change{Session: id, Old: record(u)})
	}
}

// testSizes takes a record through all sizes, back and forth.
func testSizes(t *testing.T, f *Fixture) {
	u, id := NewUser(), NewSession()
	var session, user []byte
	set := func(n int) {
		t.Helper()
		s := bytes.Repeat([]byte{byte(n), 0, 0xff}, n)[:n]
		r := append(bytes.Clone(s), '!')
		f.MustSwap(t, true, u, store.Change{Session: id, Old: session, New: s}, store.Change{Old: user, New: r})
		session, user = s, r
		f.Expect(t, u, id, string(s), string(r))
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

func testInvalid(t *testing.T, f *Fixture) {
	u, id := NewUser(), NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	huge := make([]byte, 64<<10+1)
	name := strings.Repeat("n", 4<<10+1)
	for what, w := range map[string]store.Write{
		"nothing":       {User: u},
		"empty old":     One(u, store.Change{Session: id, Old: []byte{}, New: []byte("b")}),
		"empty new":     One(u, store.Change{Session: id, Old: []byte("a"), New: []byte{}}),
		"huge":          One(u, store.Change{Session: id, Old: []byte("a"), New: huge}),
		"user name":     One(store.UserKey{Homeserver: u.Homeserver, User: name}, store.Change{Session: id, New: []byte("b")}),
		"hs name":       One(store.UserKey{Homeserver: name, User: u.User}, store.Change{Session: id, New: []byte("b")}),
		"twice":         {User: u, Changes: []store.Change{{Session: id, Old: []byte("a"), New: []byte("b")}, {Session: id, Old: []byte("b"), New: []byte("c")}}},
		"twice, a user": {User: u, Changes: []store.Change{{New: []byte("b")}, {New: []byte("b")}}},
	} {
		t.Run(what, func(t *testing.T) {
			if ok, err := f.Swap(t.Context(), w); err == nil || ok {
				t.Errorf("%s: Swap gave %v, %v", what, ok, err)
			}
		})
	}
	f.Expect(t, u, id, "a", "")
	mine := One(u, store.Change{New: []byte("mine")})
	if ok, err := f.Swap(t.Context(), mine); !ok || err != nil {
		t.Errorf("Swap of the user's record gave %v, %v", ok, err)
	}
	if v, err := f.Load(t.Context(), u, noSession, revocation.DeviceTag{}); err != nil || v.Session != nil || string(v.User) != "mine" {
		t.Errorf("Load of no session gave %+v, %v", v, err)
	}
	if _, err := f.Load(t.Context(), store.UserKey{User: name}, id, revocation.DeviceTag{}); err == nil {
		t.Error("Load takes any name")
	}
	if _, err := f.List(t.Context(), store.UserKey{Homeserver: name}); err == nil {
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

func testContext(t *testing.T, f *Fixture) {
	u, id := NewUser(), NewSession()
	f.MustSwap(t, true, u, store.Change{Session: id, New: []byte("a")})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errLoad := f.Load(ctx, u, id, revocation.DeviceTag{})
	_, errList := f.List(ctx, u)
	_, errSwap := f.Swap(ctx, One(u, store.Change{Session: id, Old: []byte("a"), New: []byte("b")}))
	_, errHome := f.SwapHomeserver(ctx, u.Homeserver, nil, []byte("b"))
	for i, err := range []error{errLoad, errList, errSwap, errHome, f.Ready(ctx)} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrLost) {
			t.Errorf("method %d with a context that has ended: %v", i, err)
		}
	}
	f.Expect(t, u, id, "a", "")
}

func testAliasing(t *testing.T, f *Fixture) {
	u, id := NewUser(), NewSession()
	record := []byte("session")
	f.MustSwap(t, true, u, store.Change{Session: id, New: record}, store.Change{New: []byte("user")})
	if _, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("home")); err != nil {
		t.Fatal(err)
	}
	copy(record, "!!!!!!!")
	for range 2 {
		v, l := f.MustLoad(t, u, id), f.MustList(t, u)
		if string(v.Session) != "session" || string(v.User) != "user" || string(v.Homeserver) != "home" {
			t.Fatalf("Load gives %+v", v)
		}
		if string(l.User) != "user" || string(l.Sessions[id]) != "session" {
			t.Fatalf("List gives %q", l)
		}
		for _, b := range [][]byte{v.Session, v.User, v.Homeserver, l.User, l.Sessions[id]} {
			copy(b, bytes.Repeat([]byte("?"), len(b)))
		}
	}
}
