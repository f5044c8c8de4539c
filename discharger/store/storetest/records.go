package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger/caveat"
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

func testList(t *testing.T, f *Fixture) {
	for _, n := range []int{1, 3, 30, 600} {
		u := NewUser()
		want := make(map[caveat.SessionID][]byte)
		for i := range n {
			id, record := NewSession(), bytes.Repeat([]byte{byte(i)}, 1+rand.IntN(150))
			c := store.Change{Session: id, New: record, Expires: f.Clock.In(time.Hour)}
			if i%3 == 1 {
				c.Expires = f.Clock.In(-time.Hour)
			} else {
				want[id] = record
			}
			f.MustSwap(t, true, u, c)
		}
		got := f.MustList(t, u)
		if !maps.EqualFunc(got.Sessions, want, bytes.Equal) {
			t.Fatalf("of %d sessions %d are listed, want %d", n, len(got.Sessions), len(want))
		}
		if got.User != nil {
			t.Fatalf("user without a record is %q", got.User)
		}
		for id, record := range want {
			f.Expect(t, u, id, string(record), "")
		}
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

// testNeighbours lets a user's sessions come and go whose ids are as alike as
// ids can be.
func testNeighbours(t *testing.T, f *Fixture) {
	u := NewUser()
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
		f.MustSwap(t, true, u, store.Change{Session: id, Old: want[id], New: record})
		if want[id] = record; record == nil {
			delete(want, id)
		}
		if got := f.MustList(t, u); !maps.EqualFunc(got.Sessions, want, bytes.Equal) {
			t.Fatalf("after %d changes the sessions are %v, want %v", i+1, got.Sessions, want)
		}
	}
	for _, id := range sessions {
		f.Expect(t, u, id, string(want[id]), "")
	}
}

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
		if ok, err := f.Swap(t.Context(), w); err == nil || ok {
			t.Errorf("%s: Swap gave %v, %v", what, ok, err)
		}
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

func testReopen(t *testing.T, f *Fixture) {
	u, a, b := NewUser(), NewSession(), NewSession()
	f.MustSwap(t, true, u,
		store.Change{Session: a, New: bytes.Repeat([]byte("a"), 90), Expires: f.Clock.In(time.Hour)},
		store.Change{Session: b, New: []byte("b"), Expires: f.Clock.In(3 * time.Hour)},
		store.Change{New: []byte("u")})
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("h")); err != nil || !ok {
		t.Fatalf("SwapHomeserver: %v, %v", ok, err)
	}
	f.Reopen(t, f)
	f.Expect(t, u, a, strings.Repeat("a", 90), "u")
	f.Expect(t, u, b, "b", "u")
	if got := f.MustLoad(t, u, b).Homeserver; string(got) != "h" {
		t.Errorf("homeserver's record is %q", got)
	}
	f.Clock.Advance(2 * time.Hour)
	f.Expect(t, u, a, "", "u")
	f.Expect(t, u, b, "b", "u")
	if err := f.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
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

// testModel compares a store with the obvious implementation.
func testModel(t *testing.T, f *Fixture) {
	rapid.Check(t, func(r *rapid.T) {
		u, now := NewUser(), f.Clock.Now()
		sessions := []caveat.SessionID{noSession, {0: 1}, {0: 1, 15: 1}, {0: 127}, {0: 2}, {0: 254}}
		type row struct {
			record  []byte
			expires time.Time
		}
		model := make(map[caveat.SessionID]row)
		current := func(id caveat.SessionID) []byte {
			m, ok := model[id]
			if !ok || id != noSession && !m.expires.IsZero() && !now.Before(m.expires) {
				return nil
			}
			return m.record
		}
		records := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 1, 130), rapid.SliceOfN(rapid.ByteRange(0, 1), 1, 1))
		for range rapid.IntRange(1, 25).Draw(r, "writes") {
			w := store.Write{User: u}
			if rapid.Bool().Draw(r, "revokes") {
				w.Revocations = Ending(t, u, sessions[1])
			}
			ids := slices.Clone(sessions)
			rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			want := true
			for _, id := range ids[:rapid.IntRange(1, 3).Draw(r, "changes")] {
				c := store.Change{Session: id, Old: current(id), New: records.Draw(r, "new")}
				if rapid.IntRange(0, 9).Draw(r, "wrong") == 0 {
					c.Old = records.Draw(r, "old")
				}
				if hours := rapid.IntRange(-1, 3).Draw(r, "hours"); hours != 0 && id != noSession {
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
				f.Expect(t, u, id, string(current(id)), string(current(noSession)))
			}
		}
	})
}
