package storetest

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store"
	"pgregory.net/rapid"
)

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
