package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// Feed is the part of a fixture's store that reads feeds.
func (f *Fixture) Feed() store.Feed { return f.Store.(store.Feed) }

// Events makes revocations with events that are kept for an hour. Each is about a
// user whose name is the text. They are not journaled.
func (f *Fixture) Events(texts ...string) (out []revocation.Revocation) {
	for _, text := range texts {
		out = append(out, Event(text, f.Clock.In(time.Hour)))
	}
	return out
}

// Event makes a revocation with an event, which is not journaled.
func Event(text string, until time.Time) revocation.Revocation {
	return revocation.Revocation{
		Kind: revocation.KindUser, User: text, At: 1_700_000_000_000, Cause: revocation.CauseRevoked,
		Notice: revocation.Notice{Until: until.UnixMilli(), Only: true},
	}
}

// MustPublish publishes events.
func (f *Fixture) MustPublish(t testing.TB, homeserver string, events ...revocation.Revocation) {
	t.Helper()
	if err := f.Publish(t.Context(), homeserver, events...); err != nil {
		t.Fatalf("Publish: %v", err)
	}
}

// MustRead reads all that there is after a position.
func (f *Fixture) MustRead(t testing.TB, homeserver, after string) (out []store.FeedEntry, gap bool) {
	t.Helper()
	for first := true; ; first = false {
		page, err := f.Feed().ReadFeed(t.Context(), homeserver, after)
		if err != nil {
			t.Fatalf("ReadFeed: %v", err)
		}
		if page.Gap && !first {
			t.Fatalf("a gap in the middle, after %q", after)
		}
		gap = gap || page.Gap
		if len(page.Entries) == 0 {
			return out, gap
		}
		out = append(out, page.Entries...)
		after = page.Entries[len(page.Entries)-1].Position
	}
}

// Texts returns the texts of entries, and the data of an entry without one.
func Texts(entries []store.FeedEntry) (out []string) {
	for _, entry := range entries {
		text := string(entry.Data)
		if e, err := revocation.ParseEvent(entry.Data); err == nil && e.User != "" && e.Session == (caveat.SessionID{}) {
			text = e.User
		}
		out = append(out, text)
	}
	return out
}

// ExpectFeed checks the entries of a feed after a position.
func (f *Fixture) ExpectFeed(t testing.TB, homeserver, after string, wantGap bool, want ...string) []store.FeedEntry {
	t.Helper()
	got, gap := f.MustRead(t, homeserver, after)
	if !slices.Equal(Texts(got), want) || gap != wantGap {
		t.Fatalf("after %q: %q with gap %v, want %q with gap %v", after, Texts(got), gap, want, wantGap)
	}
	return got
}

// testFeedOrder takes events from all three sources, and none from a write that
// was not made.
func testFeedOrder(t *testing.T, f *Fixture) {
	u, other := NewUser(), NewUser()
	f.ExpectFeed(t, u.Homeserver, "", false)
	w := store.Write{User: u, Changes: []store.Change{{Session: NewSession(), New: []byte("a")}}, Revocations: append(Ending(t, u, NewSession()), f.Events("1", "2")...)}
	for range 2 { // probably done, and published again
		if ok, err := f.Swap(t.Context(), w); err != nil || !ok {
			t.Fatalf("Swap: %v, %v", ok, err)
		}
	}
	w.Changes[0].Old, w.Changes[0].New, w.Revocations = []byte("something else"), []byte("b"), f.Events("never")
	if ok, err := f.Swap(t.Context(), w); err != nil || ok {
		t.Fatalf("Swap: %v, %v", ok, err)
	}
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("h"), f.Events("3")...); err != nil || !ok {
		t.Fatalf("SwapHomeserver: %v, %v", ok, err)
	}
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, []byte("x"), []byte("y"), f.Events("never")...); err != nil || ok {
		t.Fatalf("SwapHomeserver: %v, %v", ok, err)
	}
	f.MustPublish(t, u.Homeserver, f.Events("4", "5")...)
	f.MustPublish(t, other.Homeserver, f.Events("other")...)
	all := f.ExpectFeed(t, u.Homeserver, "", false, "1", "2", "1", "2", "3", "4", "5")
	for i, e := range all {
		if e.Position == "" || strings.ContainsAny(e.Position, " \n\r\x00") {
			t.Errorf("position %q", e.Position)
		}
		f.ExpectFeed(t, u.Homeserver, e.Position, false, Texts(all[i+1:])...)
	}
	for _, bad := range [][]revocation.Revocation{nil, f.Events(""), {Event("x", time.UnixMilli(0))}, {Event("x", time.UnixMilli(-1))},
		f.Events(strings.Repeat("u", 17<<10))} {
		if err := f.Publish(t.Context(), u.Homeserver, bad...); err == nil {
			t.Errorf("%d events accepted", len(bad))
		}
	}
}

// testFeedResume reads a feed that is longer than a page from every position.
func testFeedResume(t *testing.T, f *Fixture) {
	const n = 1100
	u, want := NewUser(), make([]string, n)
	for i := range want {
		want[i] = fmt.Sprint(i)
	}
	for _, part := range [][]string{want[:600], want[600:601], want[601:]} {
		f.MustPublish(t, u.Homeserver, f.Events(part...)...)
	}
	all := f.ExpectFeed(t, u.Homeserver, "", false, want...)
	for i := 0; i < n; i += 17 {
		f.ExpectFeed(t, u.Homeserver, all[i].Position, false, want[i+1:]...)
	}
	f.ExpectFeed(t, u.Homeserver, all[n-1].Position, false)
}

func testFeedGap(t *testing.T, f *Fixture) {
	u, other := NewUser(), NewUser()
	f.MustPublish(t, u.Homeserver, f.Events("1", "2")...)
	at := f.ExpectFeed(t, u.Homeserver, "", false, "1", "2")[1].Position
	f.MustPublish(t, other.Homeserver, f.Events("a", "b", "c", "d")...)
	elsewhere := f.ExpectFeed(t, other.Homeserver, "", false, "a", "b", "c", "d")
	prefix, rest, _ := strings.Cut(at, ".")
	for _, position := range []string{
		"x", ".", "-", "\x00", "0-0", prefix, prefix + ".", prefix + ".0-0", prefix + ".0", prefix + ".1-", prefix + ".999",
		prefix + ".1-1", prefix + ".9999999999999-0", prefix + ".18446744073709551615-18446744073709551615", prefix + ".18446744073709551616-0",
		prefix + ".-1", prefix + ".01-1", prefix + ".2.x", "AAAAAAAA." + rest, at + "0", at + "-0", elsewhere[3].Position, strings.Repeat("9", 5000),
	} {
		f.ExpectFeed(t, u.Homeserver, position, true, "1", "2")
	}
	f.ExpectFeed(t, NewUser().Homeserver, at, true)
	f.ExpectFeed(t, u.Homeserver, at, false)
}

// testFeedRetention has events go when their time is over, up to the first that
// has to stay.
func testFeedRetention(t *testing.T, f *Fixture) {
	u := NewUser()
	over := func(text string) revocation.Revocation { return Event(text, f.Clock.In(-time.Second)) }
	f.MustPublish(t, u.Homeserver, over("1"), over("2"), over("3"))
	f.MustPublish(t, u.Homeserver, append(f.Events("4"), over("5"))...)
	f.Forget(t, u)
	f.MustPublish(t, u.Homeserver, f.Events("6")...)
	all := f.ExpectFeed(t, u.Homeserver, "", false, "4", "5", "6")
	f.ExpectFeed(t, u.Homeserver, all[0].Position, false, "5", "6")

	quiet := NewUser()
	f.MustPublish(t, quiet.Homeserver, f.Events("1")...)
	at := f.ExpectFeed(t, quiet.Homeserver, "", false, "1")[0].Position
	f.MustPublish(t, quiet.Homeserver, over("2"))
	f.ExpectFeed(t, quiet.Homeserver, at, false, "2")
}

// testFeedReopen goes on at the positions from before.
func testFeedReopen(t *testing.T, f *Fixture) {
	u := NewUser()
	f.MustPublish(t, u.Homeserver, f.Events("1", "2")...)
	before := f.ExpectFeed(t, u.Homeserver, "", false, "1", "2")
	f.Reopen(t, f)
	f.MustPublish(t, u.Homeserver, f.Events("3")...)
	f.ExpectFeed(t, u.Homeserver, before[0].Position, false, "2", "3")
	f.ExpectFeed(t, u.Homeserver, before[1].Position, false, "3")
}

// testFeedConcurrent appends from many goroutines while a reader follows. The
// reader sees each event once, and the events of one goroutine in order.
func testFeedConcurrent(t *testing.T, f *Fixture) {
	const writers, each = 8, 12
	u := NewUser()
	var wg sync.WaitGroup
	handles := []store.Store{f.Store, f.Other(t)}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := handles[w%2].Publish(t.Context(), u.Homeserver, f.Events(fmt.Sprintf("%d %d", w, i))...); err != nil {
					t.Errorf("Publish: %v", err)
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	next, after := make(map[int]int), ""
	for seen := 0; seen < writers*each; {
		page, err := f.Feed().ReadFeed(ctx, u.Homeserver, after)
		if err != nil || page.Gap {
			t.Fatalf("after %d events: %v, gap %v", seen, err, page.Gap)
		}
		for _, e := range page.Entries {
			var w, i int
			fmt.Sscan(Texts([]store.FeedEntry{e})[0], &w, &i)
			if i != next[w] {
				t.Fatalf("writer %d: event %d comes where %d should", w, i, next[w])
			}
			next[w]++
			seen++
			after = e.Position
		}
		if len(page.Entries) == 0 {
			if err := f.Feed().AwaitFeed(ctx, u.Homeserver, after); err != nil {
				t.Fatalf("AwaitFeed: %v", err)
			}
		}
	}
	wg.Wait()
	f.ExpectFeed(t, u.Homeserver, after, false)
}

func testFeedAwait(t *testing.T, f *Fixture) {
	u := NewUser()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		for {
			if err := f.Feed().AwaitFeed(ctx, u.Homeserver, ""); err != nil {
				ended <- err
				return
			}
		}
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	f.MustPublish(t, u.Homeserver, f.Events("1")...)
	if err := f.Feed().AwaitFeed(t.Context(), u.Homeserver, ""); err != nil {
		t.Errorf("with an event there: %v", err)
	}
	if err := f.Feed().AwaitFeed(t.Context(), u.Homeserver, "unknown"); err != nil {
		t.Errorf("at an unknown position: %v", err)
	}
	if _, err := f.Feed().ReadFeed(ctx, u.Homeserver, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadFeed when cancelled: %v", err)
	}
}

// FeedBound checks a feed of three events at most: a reader sees a gap for as
// long as dropped events matter.
func FeedBound(t *testing.T, f *Fixture, after func(time.Time)) {
	u := NewUser()
	until := f.Clock.In(20 * time.Minute)
	soon := Event("soon", until)
	f.MustPublish(t, u.Homeserver, soon)
	f.MustPublish(t, u.Homeserver, f.Events("1", "2")...)
	all := f.ExpectFeed(t, u.Homeserver, "", false, "soon", "1", "2")
	f.MustPublish(t, u.Homeserver, f.Events("3")...)
	f.ExpectFeed(t, u.Homeserver, "", true, "1", "2", "3")
	f.ExpectFeed(t, u.Homeserver, all[0].Position, true, "1", "2", "3")
	f.ExpectFeed(t, u.Homeserver, all[1].Position, false, "2", "3")
	after(until)
	f.ExpectFeed(t, u.Homeserver, "", false, "1", "2", "3")
	if _, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("h"), f.Events("4", "5", "6", "7", "8")...); err != nil {
		t.Fatal(err)
	}
	f.ExpectFeed(t, u.Homeserver, "", true, "6", "7", "8")
}

// Raw is a feed in which the events of some texts have other data.
type Raw struct {
	store.Feed
	Data map[string]string
}

// ReadFeed returns the next events after a position.
func (r *Raw) ReadFeed(ctx context.Context, homeserver, after string) (store.FeedPage, error) {
	page, err := r.Feed.ReadFeed(ctx, homeserver, after)
	for i, text := range Texts(page.Entries) {
		if data, ok := r.Data[text]; ok {
			page.Entries[i].Data = []byte(data)
		}
	}
	return page, err
}
