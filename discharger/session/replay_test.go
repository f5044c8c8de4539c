package session

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// A ledger holds the records of one user in a store, written as by the service.
// Every step takes a minute.
type ledger struct {
	t        *rapid.T
	now      int64
	user     GenerationRecord
	sessions map[caveat.SessionID]Record
}

var ledgerUser = store.UserKey{Homeserver: "example.org", User: "@alice:example.org"}

func (l *ledger) clone() *ledger {
	c := *l
	c.sessions = maps.Clone(l.sessions)
	return &c
}

func (l *ledger) alive(id caveat.SessionID) bool {
	r, ok := l.sessions[id]
	return ok && !r.Over() && r.UserGeneration >= l.user.Generation
}

func (l *ledger) marshal(v interface{ MarshalBinary() ([]byte, error) }) []byte {
	b, err := v.MarshalBinary()
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

func (l *ledger) listing() store.Listing {
	out := store.Listing{Sessions: make(map[caveat.SessionID][]byte)}
	if !reflect.DeepEqual(l.user, GenerationRecord{}) {
		out.User = l.marshal(l.user)
	}
	for id, r := range l.sessions {
		out.Sessions[id] = l.marshal(&r)
	}
	return out
}

func (l *ledger) apply(changes []store.Change) {
	for _, c := range changes {
		if c.Session == (caveat.SessionID{}) {
			if err := l.user.UnmarshalBinary(c.New); err != nil {
				l.t.Fatal(err)
			}
			continue
		}
		var r Record
		if err := r.UnmarshalBinary(c.New); err != nil {
			l.t.Fatal(err)
		}
		l.sessions[c.Session] = r
	}
}

// step makes a random change and returns its journal entries.
func (l *ledger) step(next *byte) []revocation.Revocation {
	l.now += time.Minute.Milliseconds()
	ids := slices.SortedFunc(maps.Keys(l.sessions), func(a, b caveat.SessionID) int { return int(a[0]) - int(b[0]) })
	kind := rapid.SampledFrom([]int{4, 0, 3, 0, 2, 4, 0}).Draw(l.t, "step")
	if len(ids) == 0 {
		kind = 0
	}
	end := revocation.End{At: l.now, Soft: rapid.Bool().Draw(l.t, "soft"), Cause: rapid.SampledFrom([]revocation.Cause{revocation.CauseLogout, revocation.CauseReuse, revocation.CausePolicy}).Draw(l.t, "cause")}
	if end.Cause == revocation.CausePolicy {
		end.Code = "why"
	}
	keep := time.UnixMilli(l.now).Add(time.Hour)
	var changes []store.Change
	var entry revocation.Revocation
	switch kind {
	case 0:
		*next++
		l.sessions[caveat.SessionID{*next}] = Record{
			Mode: caveat.ModeOpen, Created: l.now, LastUsed: l.now, UserGeneration: l.user.Generation, Device: "D",
		}
		return nil
	case 2:
		id := rapid.SampledFrom(ids).Draw(l.t, "session")
		r := l.sessions[id]
		if over, yes := (State{Session: &r, User: l.user}).Ended(); yes { // the service remembers it as that
			end = over
		}
		changes = []store.Change{{Session: id, New: l.marshal(r.Tombstone(end))}}
		entry = RevokedSession(ledgerUser, id, r.Tombstone(end), keep)
	default:
		rev := l.user.Raise(l.now, caveat.SessionID{}, end)
		if id := rapid.SampledFrom(ids).Draw(l.t, "except"); kind == 4 && l.alive(id) {
			kept := l.sessions[id]
			kept.UserGeneration, rev.Except = rev.Generation, id
			changes = []store.Change{{Session: id, New: l.marshal(&kept)}}
		}
		changes = append(changes, store.Change{New: l.marshal(rev), Expires: keep})
		entry = RevokedUser(ledgerUser, &rev, keep)
	}
	l.apply(changes)
	return []revocation.Revocation{entry}
}

// revokes reports whether an entry ends a session, by its description alone.
func revokes(e revocation.Revocation, id caveat.SessionID, created int64) bool {
	if e.Kind == revocation.KindSession {
		return e.Session == id
	}
	return created < e.At && e.Except != id
}

// endedAs demands that a session ended as by the oldest entry that is about it.
func (l *ledger) endedAs(id caveat.SessionID, journal []revocation.Revocation, created int64) {
	r := l.sessions[id]
	got, over := (State{Session: &r, User: l.user}).Ended()
	i := slices.IndexFunc(journal, func(e revocation.Revocation) bool { return revokes(e, id, created) })
	if want := journal[i].End(); !over || got.Soft != want.Soft || ReasonOf(got) != ReasonOf(want) {
		l.t.Errorf("session %d ended as %+v, want %+v", id[0], got, want)
	}
}

// TestReplayModel revokes sessions, takes the store back to some earlier time, goes on
// from there as processes without the journal do, and replays. Then the revoked
// sessions have ended, and no others.
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
	l := &ledger{t: t, now: 1_800_000_000_000, sessions: make(map[caveat.SessionID]Record)}
	cut := l.clone()
	var journal []revocation.Revocation
	created := make(map[caveat.SessionID]int64)
	born := func(l *ledger) {
		for id, r := range l.sessions {
			if created[id] == 0 && !r.Over() {
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
	replay := func() (int, []revocation.Revocation) {
		changes, restored, err := Replay(journal, after.listing(), time.UnixMilli(after.now))
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
		if cut.alive(id) && !want {
			after.endedAs(id, journal, created[id])
		}
		announced := slices.ContainsFunc(restored, func(e revocation.Revocation) bool { return revokes(e, id, created[id]) })
		if cut.alive(id) && !want && !announced || announced && want {
			t.Errorf("of session %d, alive before: %v, after: %v, its end is announced: %v", id[0], cut.alive(id), want, announced)
		}
	}
	if n, restored := replay(); n != 0 || len(restored) != 0 {
		t.Errorf("replayed again: %d changed records and %d restored entries", n, len(restored))
	}
}

// TestReplayClocks spares sessions that began later than the revocation by more than
// the clocks may differ.
func TestReplayClocks(t *testing.T) {
	t.Parallel()
	at := int64(1_800_000_000_000)
	e := revocation.Revocation{Kind: revocation.KindUser, Homeserver: "h", User: "u", Generation: 1, At: at, Keep: at/1000 + 3600}
	for created, want := range map[int64]bool{at - 1000: false, at: false, at + 5000: false, at + 11_000: true} {
		t.Run(fmt.Sprintf("created %d ms after", created-at), func(t *testing.T) {
			l := store.Listing{Sessions: map[caveat.SessionID][]byte{}}
			r := Record{Mode: caveat.ModeOpen, Created: created, LastUsed: created}
			raw, err := r.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			l.Sessions[caveat.SessionID{1}] = raw
			changes, _, err := Replay([]revocation.Revocation{e}, l, time.UnixMilli(at))
			if err != nil {
				t.Fatal(err)
			}
			if got := len(changes) == 2; got != want {
				t.Errorf("lifted %v, want %v", got, want)
			}
			if c := changes[0]; !c.Expires.Equal(time.UnixMilli(at).Add(time.Hour)) {
				t.Errorf("the user's record expires at %v", c.Expires)
			}
		})
	}
}

// TestReplayForgotten leaves a user's record forgotten which the store no longer
// had to keep, and takes it for lost when it had to.
func TestReplayForgotten(t *testing.T) {
	t.Parallel()
	now := int64(1_800_000_000_000)
	r := Record{Mode: caveat.ModeOpen, Created: now - 2*time.Hour.Milliseconds(), LastUsed: now}
	live, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	ended, err := r.Tombstone(revocation.End{Cause: revocation.CauseLogout, At: now - 1000}).MarshalBinary()
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
		e := revocation.Revocation{
			Kind: revocation.KindUser, Homeserver: "h", User: "u", Generation: 1, At: now - time.Hour.Milliseconds(), Keep: c.keep,
		}
		l := store.Listing{Sessions: map[caveat.SessionID][]byte{}}
		if c.session != nil {
			l.Sessions[caveat.SessionID{1}] = c.session
		}
		changes, restored, err := Replay([]revocation.Revocation{e}, l, time.UnixMilli(now))
		if err != nil || (len(changes) > 0) != c.want || (len(restored) > 0) != c.want {
			t.Errorf("%s: %d changes, %d entries restored, %v", what, len(changes), len(restored), err)
		}
	}
}

// TestReplayTombstone writes one where there is no record, as long as a
// session could still begin there, and never touches an unreadable record.
func TestReplayTombstone(t *testing.T) {
	t.Parallel()
	id, now := caveat.SessionID{1}, time.UnixMilli(1_800_000_000_000)
	e := revocation.Revocation{Kind: revocation.KindSession, Homeserver: "h", User: "u", Session: id, Generation: 7, At: now.UnixMilli()}
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
		l := store.Listing{Sessions: map[caveat.SessionID][]byte{}}
		if c.session != nil {
			l.Sessions[id] = c.session
		}
		e.Keep = c.keep
		changes, _, err := Replay([]revocation.Revocation{e}, l, now)
		if err != nil || len(changes) != c.want {
			t.Errorf("%s: %d changes, %v, want %d", what, len(changes), err, c.want)
		}
		if len(changes) == 1 {
			var r Record
			if err := r.UnmarshalBinary(changes[0].New); err != nil || !r.Over() || r.Confirmed.Epoch != 7 || !r.End.Soft {
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
	entry := func(g uint64, at int64) revocation.Revocation {
		return revocation.Revocation{Kind: revocation.KindHomeserver, Homeserver: "h", Generation: g, At: at}
	}
	for _, c := range []struct {
		have, want GenerationRecord
		entries    []revocation.Revocation
	}{
		{GenerationRecord{}, GenerationRecord{Generation: 2, At: 20}, []revocation.Revocation{entry(1, 10), entry(2, 20)}},
		{GenerationRecord{Generation: 5, At: 15}, GenerationRecord{Generation: 5, At: 20}, []revocation.Revocation{entry(2, 20)}},
		{GenerationRecord{Generation: 5, At: 50}, GenerationRecord{Generation: 5, At: 50}, []revocation.Revocation{entry(2, 20)}},
	} {
		have, err := c.have.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		b, _, err := ReplayHomeserver("h", c.entries, have, time.UnixMilli(1<<50))
		if err != nil {
			t.Fatal(err)
		}
		var got GenerationRecord
		if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v becomes %+v, %v, want %+v", c.have, got, err, c.want)
		}
	}
}

// TestReplayKinds holds how sessions are over that a journal ends again. Entries
// of earlier versions do not say so.
func TestReplayKinds(t *testing.T) {
	t.Parallel()
	const now = int64(1_800_000_000_000)
	id := caveat.SessionID{1}
	live := Record{Mode: caveat.ModeOpen, Created: now - 3_600_000, LastUsed: now, Device: "D"}
	tests := map[string]struct {
		entry revocation.Revocation
		want  revocation.End
	}{
		"session, by an earlier version": {revocation.Revocation{Kind: revocation.KindSession}, revocation.End{Soft: true, Cause: revocation.CauseRevoked}},
		"session, logged out":            {revocation.Revocation{Kind: revocation.KindSession, Cause: revocation.CauseLogout}, revocation.End{Cause: revocation.CauseLogout}},
		"session, theft":                 {revocation.Revocation{Kind: revocation.KindSession, Cause: revocation.CauseReuse, Soft: true}, revocation.End{Soft: true, Cause: revocation.CauseReuse}},
		"session, by a policy": {
			revocation.Revocation{Kind: revocation.KindSession, Cause: revocation.CausePolicy, Code: "why"}, revocation.End{Cause: revocation.CausePolicy, Code: "why"},
		},
		"user, by an earlier version": {revocation.Revocation{Kind: revocation.KindUser, Generation: 1}, revocation.End{Cause: revocation.CauseRevoked}},
		"user, softly":                {revocation.Revocation{Kind: revocation.KindUser, Generation: 1, Cause: revocation.CauseRevoked, Soft: true}, revocation.End{Soft: true, Cause: revocation.CauseRevoked}},
		"user, by a policy": {
			revocation.Revocation{Kind: revocation.KindUser, Generation: 1, Cause: revocation.CausePolicy, Code: "why"}, revocation.End{Cause: revocation.CausePolicy, Code: "why"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := &ledger{now: now, sessions: map[caveat.SessionID]Record{id: live}}
			tt.entry.At, tt.entry.Session = now-1000, id
			changes, restored, err := Replay([]revocation.Revocation{tt.entry}, l.listing(), time.UnixMilli(now))
			if err != nil || len(changes) != 1 || len(restored) != 1 {
				t.Fatalf("%d changes, %d restored, %v", len(changes), len(restored), err)
			}
			l.apply(changes)
			r := l.sessions[id]
			got, over := (State{Session: &r, User: l.user}).Ended()
			if tt.want.At = got.At; !over || got != tt.want || got.At == 0 {
				t.Errorf("ended as %+v, want %+v", got, tt.want)
			}
			if r.Device != "D" {
				t.Errorf("device %q", r.Device)
			}
		})
	}
	for name, tt := range tests {
		if tt.entry.Kind != revocation.KindUser {
			continue
		}
		t.Run("homeserver as "+name, func(t *testing.T) {
			e := tt.entry
			e.Kind, e.At = revocation.KindHomeserver, now-1000
			b, _, err := ReplayHomeserver("h", []revocation.Revocation{e}, nil, time.UnixMilli(1<<50))
			var v GenerationRecord
			if err == nil {
				err = v.UnmarshalBinary(b)
			}
			got, over := (State{Session: &live, Homeserver: v}).Ended()
			if tt.want.At = got.At; err != nil || !over || got != tt.want {
				t.Errorf("ended as %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

// TestReplaySparesSessionsWithoutDevice replays a revocation of all of a user's
// sessions that have a device.
func TestReplaySparesSessionsWithoutDevice(t *testing.T) {
	t.Parallel()
	const now = int64(1_800_000_000_000)
	l := &ledger{now: now, sessions: map[caveat.SessionID]Record{
		{1}: {Mode: caveat.ModeOpen, Created: now - 3_600_000, LastUsed: now, Device: "D"},
		{2}: {Mode: caveat.ModeOpen, Created: now - 3_600_000, LastUsed: now},
	}}
	e := revocation.Revocation{Kind: revocation.KindUser, Generation: 1, At: now - 1000, Devices: true, Cause: revocation.CauseRevoked}
	for range 2 {
		changes, _, err := Replay([]revocation.Revocation{e}, l.listing(), time.UnixMilli(now))
		if err != nil {
			t.Fatal(err)
		}
		l.apply(changes)
		if l.alive(caveat.SessionID{1}) || !l.alive(caveat.SessionID{2}) {
			t.Fatalf("alive: with a device %v, without %v", l.alive(caveat.SessionID{1}), l.alive(caveat.SessionID{2}))
		}
	}
}

// TestReplayDevice notes a device's revocation again, unless it is there, newer,
// or no longer needed.
func TestReplayDevice(t *testing.T) {
	t.Parallel()
	const now = int64(1_800_000_000_000)
	tag := revocation.TagOf("D")
	e := revocation.Revocation{Kind: revocation.KindDevice, Tag: tag, At: now - 1000, Keep: now/1000 + 60, Except: caveat.SessionID{3}, Soft: true, Cause: revocation.CauseRevoked}
	end := revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: e.At}
	current := DeviceRecord{Current: caveat.SessionID{7}, Since: now - 60_000}
	newer := DeviceRecord{Revoked: now, End: revocation.End{Cause: revocation.CauseRevoked, At: now}}
	with := current
	with.Revoked, with.End, with.Except = e.At, end, e.Except
	for name, tt := range map[string]struct {
		have *DeviceRecord
		at   int64
		want *DeviceRecord // nil: no change
	}{
		"no record":             {nil, now, &DeviceRecord{Revoked: e.At, End: end, Except: e.Except}},
		"no record, too late":   {nil, now + 120_000, nil},
		"a session is current":  {&current, now, &with},
		"it is there":           {&with, now, nil},
		"a newer one is there":  {&newer, now, nil},
		"current, and too late": {&current, now + 120_000, &with},
	} {
		t.Run(name, func(t *testing.T) {
			l := store.Listing{Devices: map[revocation.DeviceTag][]byte{}}
			if tt.have != nil {
				l.Devices[tag], _ = tt.have.MarshalBinary()
			}
			changes, restored, err := Replay([]revocation.Revocation{e}, l, time.UnixMilli(tt.at))
			if err != nil || len(changes) != len(restored) || (len(changes) == 1) != (tt.want != nil) {
				t.Fatalf("%d changes, %d restored, %v", len(changes), len(restored), err)
			}
			if tt.want == nil {
				return
			}
			var got DeviceRecord
			if err := got.UnmarshalBinary(changes[0].New); err != nil || got != *tt.want || changes[0].Device != tag {
				t.Errorf("got %+v, %v; want %+v", got, err, *tt.want)
			}
		})
	}
}

// TestReplayEndsStayInOrder replays revocations of different journals, whose
// generations are not in the order of their times.
func TestReplayEndsStayInOrder(t *testing.T) {
	t.Parallel()
	const now = int64(1_800_000_000_000)
	id := caveat.SessionID{1}
	l := &ledger{now: now, sessions: map[caveat.SessionID]Record{id: {Mode: caveat.ModeOpen, Created: now - 3_600_000, LastUsed: now}}}
	var entries []revocation.Revocation
	for i := range uint64(MaxEnds + 4) {
		g := (i*7)%(MaxEnds+4) + 1
		entries = append(entries, revocation.Revocation{
			Kind: revocation.KindUser, Generation: g, At: now - 1_000_000 + int64(g), Soft: true, Cause: revocation.CauseRevoked,
		})
	}
	changes, _, err := Replay(entries, l.listing(), time.UnixMilli(now))
	if err != nil {
		t.Fatal(err)
	}
	l.apply(changes) // parses the written records, which a wrong order would make unreadable
	r := l.sessions[id]
	if end, over := (State{Session: &r, User: l.user}).Ended(); !over || !end.Soft {
		t.Errorf("ended %v, %+v", over, end)
	}
}

// TestReplayOldGeneration replays a generation older than the remembered ends, of
// which the record has as many as it can. The newer ends stay exact.
func TestReplayOldGeneration(t *testing.T) {
	t.Parallel()
	const now = 1_800_000_000_000
	reuse := revocation.End{Cause: revocation.CauseReuse}
	first := GenerationRecord{}.Raise(now, caveat.SessionID{}, reuse) // by a clock that is ahead
	user := GenerationRecord{Generation: 1}
	for i := range int64(MaxEnds) {
		user = user.Raise(now-1000+i, caveat.SessionID{}, reuse)
	}
	stored, err := user.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	entry := RevokedUser(ledgerUser, &first, time.UnixMilli(now).Add(time.Hour))
	changes, _, err := Replay([]revocation.Revocation{entry}, store.Listing{User: stored}, time.UnixMilli(now))
	if err != nil || len(changes) != 1 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	var got GenerationRecord
	if err := got.UnmarshalBinary(changes[0].New); err != nil {
		t.Fatal(err)
	}
	if end := got.EndAbove(1); end.Soft || end.Cause != revocation.CauseReuse {
		t.Errorf("the sessions of generation 1 ended as %+v", end)
	}
	if len(got.Ends) != MaxEnds || got.SoftUpTo != 1 {
		t.Errorf("%d ends, soft up to %d", len(got.Ends), got.SoftUpTo)
	}
}
