package discharger_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
)

// A ledger is what a store holds of one user, kept as the service keeps it.
// Every step takes a minute.
type ledger struct {
	t        *rapid.T
	now      int64
	user     discharger.Revocation
	sessions map[caveat.SessionID]discharger.Record
}

var ledgerUser = discharger.UserKey{Homeserver: "example.org", User: "@alice:example.org"}

func (l *ledger) clone() *ledger {
	c := *l
	c.sessions = maps.Clone(l.sessions)
	return &c
}

func (l *ledger) alive(id caveat.SessionID) bool {
	r, ok := l.sessions[id]
	return ok && r.Ended == 0 && r.UserGeneration >= l.user.Generation
}

func (l *ledger) marshal(v interface{ MarshalBinary() ([]byte, error) }) []byte {
	b, err := v.MarshalBinary()
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *ledger) listing() discharger.Listing {
	out := discharger.Listing{Sessions: make(map[caveat.SessionID][]byte)}
	if l.user != (discharger.Revocation{}) {
		out.User = l.marshal(l.user)
	}
	for id, r := range l.sessions {
		out.Sessions[id] = l.marshal(&r)
	}
	return out
}

func (l *ledger) apply(changes []discharger.Change) {
	for _, c := range changes {
		if c.Session == (caveat.SessionID{}) {
			if err := l.user.UnmarshalBinary(c.New); err != nil {
				l.t.Fatal(err)
			}
			continue
		}
		var r discharger.Record
		if err := r.UnmarshalBinary(c.New); err != nil {
			l.t.Fatal(err)
		}
		l.sessions[c.Session] = r
	}
}

// step does something at random and returns what is journaled of it.
func (l *ledger) step(next *byte) []discharger.JournalEntry {
	l.now += time.Minute.Milliseconds()
	ids := slices.SortedFunc(maps.Keys(l.sessions), func(a, b caveat.SessionID) int { return int(a[0]) - int(b[0]) })
	kind := rapid.SampledFrom([]int{4, 0, 3, 0, 2, 4, 0}).Draw(l.t, "step")
	if len(ids) == 0 {
		kind = 0
	}
	w := discharger.Write{User: ledgerUser, Revokes: true}
	switch kind {
	case 0:
		*next++
		l.sessions[caveat.SessionID{*next}] = discharger.Record{
			Mode: caveat.ModeOpen, Created: l.now, LastUsed: l.now, UserGeneration: l.user.Generation, Device: "D",
		}
		return nil
	case 2:
		id := rapid.SampledFrom(ids).Draw(l.t, "session")
		w.Changes = []discharger.Change{{Session: id, New: l.marshal(&discharger.Record{Ended: l.now})}}
	default:
		rev := discharger.Revocation{Generation: l.user.Generation + 1, At: l.now}
		if id := rapid.SampledFrom(ids).Draw(l.t, "except"); kind == 4 && l.alive(id) {
			kept := l.sessions[id]
			kept.UserGeneration, rev.Except = rev.Generation, id
			w.Changes = []discharger.Change{{Session: id, New: l.marshal(&kept)}}
		}
		w.Changes = append(w.Changes, discharger.Change{New: l.marshal(rev), Expires: time.UnixMilli(l.now).Add(time.Hour)})
	}
	entries, err := discharger.JournalOf(w)
	if err != nil || len(entries) != 1 {
		l.t.Fatalf("journaled %v, %v", entries, err)
	}
	l.apply(w.Changes)
	return entries
}

// revokes says what an entry is meant to end, from its description alone.
func revokes(e discharger.JournalEntry, id caveat.SessionID, created int64) bool {
	if e.Kind == discharger.JournalSession {
		return e.Session == id
	}
	return created < e.At && e.Except != id
}

// TestReplayModel lets a process revoke, takes the store back to some earlier
// time, lets others go on from there who know of nothing, and replays. What
// the process had revoked is over then, and nothing else.
func TestReplayModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		for range 10 {
			testReplay(t)
		}
	})
}

func testReplay(t *rapid.T) {
	var next byte
	l := &ledger{t: t, now: 1_800_000_000_000, sessions: make(map[caveat.SessionID]discharger.Record)}
	cut := l.clone()
	var journal []discharger.JournalEntry
	created := make(map[caveat.SessionID]int64)
	born := func(l *ledger) {
		for id, r := range l.sessions {
			if created[id] == 0 && r.Ended == 0 {
				created[id] = r.Created
			}
		}
	}
	for range rapid.IntRange(1, 12).Draw(t, "before") {
		journal = append(journal, l.step(&next)...)
		born(l)
		if rapid.Bool().Draw(t, "replicated") {
			cut = l.clone()
		}
	}
	cut.now = l.now
	for range rapid.IntRange(0, 6).Draw(t, "others") {
		cut.step(&next)
		born(cut)
	}
	after := cut.clone()
	replay := func() (int, []discharger.JournalEntry) {
		changes, restored, err := discharger.Replay(journal, after.listing(), time.UnixMilli(after.now))
		if err != nil {
			t.Fatal(err)
		}
		after.apply(changes)
		return len(changes), restored
	}
	changed, restored := replay()
	if changed == 0 && len(restored) > 0 {
		t.Errorf("nothing changed, and these are to be announced: %+v", restored)
	}
	for id := range created {
		want := cut.alive(id)
		for _, e := range journal {
			want = want && !revokes(e, id, created[id])
		}
		if got := after.alive(id); got != want {
			t.Errorf("session %d is alive: %v, want %v; it was: %v", id[0], got, want, cut.alive(id))
		}
		told := slices.ContainsFunc(restored, func(e discharger.JournalEntry) bool { return revokes(e, id, created[id]) })
		if cut.alive(id) && !want && !told || told && want {
			t.Errorf("of session %d, alive before: %v, after: %v, it is told that it is over: %v", id[0], cut.alive(id), want, told)
		}
	}
	if n, restored := replay(); n != 0 || len(restored) != 0 {
		t.Errorf("replayed again, %d records change, and %d entries are told", n, len(restored))
	}
}

// TestReplayClocks tells sessions that began later from those that did not,
// if they began long enough later.
func TestReplayClocks(t *testing.T) {
	t.Parallel()
	at := int64(1_800_000_000_000)
	e := discharger.JournalEntry{Kind: discharger.JournalUser, Homeserver: "h", User: "u", Generation: 1, At: at, Keep: at/1000 + 3600}
	for created, want := range map[int64]bool{at - 1000: false, at: false, at + 5000: false, at + 11_000: true} {
		l := discharger.Listing{Sessions: map[caveat.SessionID][]byte{}}
		r := discharger.Record{Mode: caveat.ModeOpen, Created: created, LastUsed: created}
		raw, err := r.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		l.Sessions[caveat.SessionID{1}] = raw
		changes, _, err := discharger.Replay([]discharger.JournalEntry{e}, l, time.UnixMilli(at))
		if err != nil {
			t.Fatal(err)
		}
		if got := len(changes) == 2; got != want {
			t.Errorf("created %d ms after: lifted %v, want %v", created-at, got, want)
		}
		if c := changes[0]; !c.Expires.Equal(time.UnixMilli(at).Add(time.Hour)) {
			t.Errorf("the user's record expires at %v", c.Expires)
		}
	}
}

// TestReplayForgotten leaves a user's record forgotten which the store no longer
// had to keep, and takes it for lost when it had to.
func TestReplayForgotten(t *testing.T) {
	t.Parallel()
	now := int64(1_800_000_000_000)
	r := discharger.Record{Mode: caveat.ModeOpen, Created: now - 2*time.Hour.Milliseconds(), LastUsed: now}
	live, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	r.Ended = now - 1000
	ended, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		keep    int64
		session []byte
		want    bool
	}{
		"forgotten":                      {now/1000 - 1, nil, false},
		"forgotten, and a tombstone":     {now/1000 - 1, ended, false},
		"a session is there":             {now/1000 - 1, live, true},
		"one may still be activated":     {now/1000 + 1, nil, true},
		"kept for ever":                  {0, nil, true},
		"one may begin, and a tombstone": {now/1000 + 1, ended, true},
	} {
		e := discharger.JournalEntry{
			Kind: discharger.JournalUser, Homeserver: "h", User: "u", Generation: 1, At: now - time.Hour.Milliseconds(), Keep: c.keep,
		}
		l := discharger.Listing{Sessions: map[caveat.SessionID][]byte{}}
		if c.session != nil {
			l.Sessions[caveat.SessionID{1}] = c.session
		}
		changes, restored, err := discharger.Replay([]discharger.JournalEntry{e}, l, time.UnixMilli(now))
		if err != nil || (len(changes) > 0) != c.want || (len(restored) > 0) != c.want {
			t.Errorf("%s: %d changes, %d entries restored, %v", what, len(changes), len(restored), err)
		}
	}
}

// TestReplayTombstone writes one where there is no record, as long as a
// session could still begin there, and never touches what it cannot read.
func TestReplayTombstone(t *testing.T) {
	t.Parallel()
	id, now := caveat.SessionID{1}, time.UnixMilli(1_800_000_000_000)
	e := discharger.JournalEntry{Kind: discharger.JournalSession, Homeserver: "h", User: "u", Session: id, Generation: 7, At: now.UnixMilli()}
	for what, c := range map[string]struct {
		keep    int64
		session []byte
		want    int
	}{
		"may begin":      {now.Unix() + 60, nil, 1},
		"for ever":       {0, nil, 1},
		"too late":       {now.Unix() - 1, nil, 0},
		"not understood": {now.Unix() + 60, []byte("rubbish"), 0},
	} {
		l := discharger.Listing{Sessions: map[caveat.SessionID][]byte{}}
		if c.session != nil {
			l.Sessions[id] = c.session
		}
		e.Keep = c.keep
		changes, _, err := discharger.Replay([]discharger.JournalEntry{e}, l, now)
		if err != nil || len(changes) != c.want {
			t.Errorf("%s: %d changes, %v, want %d", what, len(changes), err, c.want)
		}
		if len(changes) == 1 {
			var r discharger.Record
			if err := r.UnmarshalBinary(changes[0].New); err != nil || r.Ended == 0 || r.Confirmed.Epoch != 7 {
				t.Errorf("%s: the record is %+v, %v", what, r, err)
			}
			if forever := changes[0].Expires.IsZero(); forever != (c.keep == 0) || !forever && changes[0].Expires.Before(now.Add(time.Minute)) {
				t.Errorf("%s: kept until %v", what, changes[0].Expires)
			}
		}
	}
}

// TestReplayHomeserver never lowers anything.
func TestReplayHomeserver(t *testing.T) {
	t.Parallel()
	entry := func(g uint64, at int64) discharger.JournalEntry {
		return discharger.JournalEntry{Kind: discharger.JournalHomeserver, Homeserver: "h", Generation: g, At: at}
	}
	for _, c := range []struct {
		have, want discharger.Revocation
		entries    []discharger.JournalEntry
	}{
		{discharger.Revocation{}, discharger.Revocation{Generation: 2, At: 20}, []discharger.JournalEntry{entry(1, 10), entry(2, 20)}},
		{discharger.Revocation{Generation: 5, At: 15}, discharger.Revocation{Generation: 5, At: 20}, []discharger.JournalEntry{entry(2, 20)}},
		{discharger.Revocation{Generation: 5, At: 50}, discharger.Revocation{Generation: 5, At: 50}, []discharger.JournalEntry{entry(2, 20)}},
	} {
		have, err := c.have.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		b, err := discharger.ReplayHomeserver(c.entries, have)
		if err != nil {
			t.Fatal(err)
		}
		var got discharger.Revocation
		if err := got.UnmarshalBinary(b); err != nil || got != c.want {
			t.Errorf("%+v becomes %+v, %v, want %+v", c.have, got, err, c.want)
		}
	}
}
