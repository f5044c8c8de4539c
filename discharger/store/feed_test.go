package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redistest"
)

// feed is the part of a fixture's store that reads feeds.
func (f *fixture) feed() discharger.Feed { return f.Store.(discharger.Feed) }

// say makes events that are kept for an hour.
func (f *fixture) say(texts ...string) (out []discharger.FeedEvent) {
	for _, text := range texts {
		out = append(out, discharger.FeedEvent{Data: []byte(text), Until: f.clock.in(time.Hour)})
	}
	return out
}

func (f *fixture) publish(t testing.TB, homeserver string, events ...discharger.FeedEvent) {
	t.Helper()
	if err := f.Publish(t.Context(), homeserver, events...); err != nil {
		t.Fatalf("Publish: %v", err)
	}
}

// read reads all that there is after a position.
func (f *fixture) read(t testing.TB, homeserver, after string) (out []discharger.FeedEntry, gap bool) {
	t.Helper()
	for first := true; ; first = false {
		page, err := f.feed().ReadFeed(t.Context(), homeserver, after)
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

func texts(entries []discharger.FeedEntry) (out []string) {
	for _, e := range entries {
		out = append(out, string(e.Data))
	}
	return out
}

// expectFeed checks what a feed says after a position.
func (f *fixture) expectFeed(t testing.TB, homeserver, after string, wantGap bool, want ...string) []discharger.FeedEntry {
	t.Helper()
	got, gap := f.read(t, homeserver, after)
	if !slices.Equal(texts(got), want) || gap != wantGap {
		t.Fatalf("after %q: %q with gap %v, want %q with gap %v", after, texts(got), gap, want, wantGap)
	}
	return got
}

// testFeedOrder takes events from all three sources, and none from a write that
// was not made.
func testFeedOrder(t *testing.T, f *fixture) {
	u, other := someone(), someone()
	f.expectFeed(t, u.Homeserver, "", false)
	w := discharger.Write{User: u, Changes: []discharger.Change{{Session: newSession(), New: []byte("a")}}, Revocations: ending(t, u, newSession()), Events: f.say("1", "2")}
	for range 2 { // as good as done, and said again
		if ok, err := f.Swap(t.Context(), w); err != nil || !ok {
			t.Fatalf("Swap: %v, %v", ok, err)
		}
	}
	w.Changes[0].Old, w.Changes[0].New, w.Events = []byte("something else"), []byte("b"), f.say("never")
	if ok, err := f.Swap(t.Context(), w); err != nil || ok {
		t.Fatalf("Swap: %v, %v", ok, err)
	}
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("h"), f.say("3")...); err != nil || !ok {
		t.Fatalf("SwapHomeserver: %v, %v", ok, err)
	}
	if ok, err := f.SwapHomeserver(t.Context(), u.Homeserver, []byte("x"), []byte("y"), f.say("never")...); err != nil || ok {
		t.Fatalf("SwapHomeserver: %v, %v", ok, err)
	}
	f.publish(t, u.Homeserver, f.say("4", "5")...)
	f.publish(t, other.Homeserver, f.say("other")...)
	all := f.expectFeed(t, u.Homeserver, "", false, "1", "2", "1", "2", "3", "4", "5")
	for i, e := range all {
		if e.Position == "" || strings.ContainsAny(e.Position, " \n\r\x00") {
			t.Errorf("position %q", e.Position)
		}
		f.expectFeed(t, u.Homeserver, e.Position, false, texts(all[i+1:])...)
	}
	for _, bad := range [][]discharger.FeedEvent{nil, {{Data: nil, Until: f.clock.in(time.Hour)}}, {{Data: []byte("x")}},
		{{Data: make([]byte, 17<<10), Until: f.clock.in(time.Hour)}}} {
		if err := f.Publish(t.Context(), u.Homeserver, bad...); err == nil {
			t.Errorf("%d events accepted", len(bad))
		}
	}
}

// testFeedResume reads a feed that is longer than a page from every position.
func testFeedResume(t *testing.T, f *fixture) {
	const n = 1100
	u, want := someone(), make([]string, n)
	for i := range want {
		want[i] = fmt.Sprint(i)
	}
	for _, part := range [][]string{want[:600], want[600:601], want[601:]} {
		f.publish(t, u.Homeserver, f.say(part...)...)
	}
	all := f.expectFeed(t, u.Homeserver, "", false, want...)
	for i := 0; i < n; i += 17 {
		f.expectFeed(t, u.Homeserver, all[i].Position, false, want[i+1:]...)
	}
	f.expectFeed(t, u.Homeserver, all[n-1].Position, false)
}

func testFeedGap(t *testing.T, f *fixture) {
	u, other := someone(), someone()
	f.publish(t, u.Homeserver, f.say("1", "2")...)
	at := f.expectFeed(t, u.Homeserver, "", false, "1", "2")[1].Position
	f.publish(t, other.Homeserver, f.say("a", "b", "c", "d")...)
	elsewhere := f.expectFeed(t, other.Homeserver, "", false, "a", "b", "c", "d")
	prefix, rest, _ := strings.Cut(at, ".")
	for _, position := range []string{
		"x", ".", "-", "\x00", "0-0", prefix, prefix + ".", prefix + ".0-0", prefix + ".0", prefix + ".1-", prefix + ".999",
		prefix + ".1-1", prefix + ".9999999999999-0", prefix + ".18446744073709551615-18446744073709551615", prefix + ".18446744073709551616-0",
		prefix + ".-1", prefix + ".01-1", prefix + ".2.x", "AAAAAAAA." + rest, at + "0", at + "-0", elsewhere[3].Position, strings.Repeat("9", 5000),
	} {
		f.expectFeed(t, u.Homeserver, position, true, "1", "2")
	}
	f.expectFeed(t, someone().Homeserver, at, true)
	f.expectFeed(t, u.Homeserver, at, false)
}

// testFeedRetention has events go when their time is over, up to the first that
// has to stay.
func testFeedRetention(t *testing.T, f *fixture) {
	u := someone()
	over := func(text string) discharger.FeedEvent {
		return discharger.FeedEvent{Data: []byte(text), Until: f.clock.in(-time.Second)}
	}
	f.publish(t, u.Homeserver, over("1"), over("2"), over("3"))
	f.publish(t, u.Homeserver, append(f.say("4"), over("5"))...)
	f.forget(t, u)
	f.publish(t, u.Homeserver, f.say("6")...)
	all := f.expectFeed(t, u.Homeserver, "", false, "4", "5", "6")
	f.expectFeed(t, u.Homeserver, all[0].Position, false, "5", "6")

	quiet := someone()
	f.publish(t, quiet.Homeserver, f.say("1")...)
	at := f.expectFeed(t, quiet.Homeserver, "", false, "1")[0].Position
	f.publish(t, quiet.Homeserver, over("2"))
	f.expectFeed(t, quiet.Homeserver, at, false, "2")
}

// testFeedReopen goes on at the positions from before.
func testFeedReopen(t *testing.T, f *fixture) {
	u := someone()
	f.publish(t, u.Homeserver, f.say("1", "2")...)
	before := f.expectFeed(t, u.Homeserver, "", false, "1", "2")
	f.reopen(t, f)
	f.publish(t, u.Homeserver, f.say("3")...)
	f.expectFeed(t, u.Homeserver, before[0].Position, false, "2", "3")
	f.expectFeed(t, u.Homeserver, before[1].Position, false, "3")
}

// testFeedConcurrent appends from many goroutines while a reader follows: it
// sees each event once, and what one goroutine said in its order.
func testFeedConcurrent(t *testing.T, f *fixture) {
	const writers, each = 8, 12
	u := someone()
	var wg sync.WaitGroup
	handles := []discharger.Store{f.Store, f.other(t)}
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := handles[w%2].Publish(t.Context(), u.Homeserver, f.say(fmt.Sprintf("%d %d", w, i))...); err != nil {
					t.Errorf("Publish: %v", err)
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	next, after := make(map[int]int), ""
	for seen := 0; seen < writers*each; {
		page, err := f.feed().ReadFeed(ctx, u.Homeserver, after)
		if err != nil || page.Gap {
			t.Fatalf("after %d events: %v, gap %v", seen, err, page.Gap)
		}
		for _, e := range page.Entries {
			var w, i int
			fmt.Sscan(string(e.Data), &w, &i)
			if i != next[w] {
				t.Fatalf("writer %d: event %d comes where %d should", w, i, next[w])
			}
			next[w]++
			seen++
			after = e.Position
		}
		if len(page.Entries) == 0 {
			if err := f.feed().AwaitFeed(ctx, u.Homeserver, after); err != nil {
				t.Fatalf("AwaitFeed: %v", err)
			}
		}
	}
	wg.Wait()
	f.expectFeed(t, u.Homeserver, after, false)
}

func testFeedAwait(t *testing.T, f *fixture) {
	u := someone()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		for {
			if err := f.feed().AwaitFeed(ctx, u.Homeserver, ""); err != nil {
				ended <- err
				return
			}
		}
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	f.publish(t, u.Homeserver, f.say("1")...)
	if err := f.feed().AwaitFeed(t.Context(), u.Homeserver, ""); err != nil {
		t.Errorf("with an event there: %v", err)
	}
	if err := f.feed().AwaitFeed(t.Context(), u.Homeserver, "unknown"); err != nil {
		t.Errorf("at an unknown position: %v", err)
	}
	if _, err := f.feed().ReadFeed(ctx, u.Homeserver, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadFeed when cancelled: %v", err)
	}
}

// testFeedBound has three events at most: the reader is told that others went
// before their time, for as long as that matters.
func testFeedBound(t *testing.T, f *fixture, after func(time.Time)) {
	u := someone()
	soon := discharger.FeedEvent{Data: []byte("soon"), Until: f.clock.in(20 * time.Minute)}
	f.publish(t, u.Homeserver, soon)
	f.publish(t, u.Homeserver, f.say("1", "2")...)
	all := f.expectFeed(t, u.Homeserver, "", false, "soon", "1", "2")
	f.publish(t, u.Homeserver, f.say("3")...)
	f.expectFeed(t, u.Homeserver, "", true, "1", "2", "3")
	f.expectFeed(t, u.Homeserver, all[0].Position, true, "1", "2", "3")
	f.expectFeed(t, u.Homeserver, all[1].Position, false, "2", "3")
	after(soon.Until)
	f.expectFeed(t, u.Homeserver, "", false, "1", "2", "3")
	if _, err := f.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("h"), f.say("4", "5", "6", "7", "8")...); err != nil {
		t.Fatal(err)
	}
	f.expectFeed(t, u.Homeserver, "", true, "6", "7", "8")
}

func TestBoltFeedBound(t *testing.T) {
	t.Parallel()
	c := newClock()
	b := openBolt(t, store.BoltConfig{Path: t.TempDir() + "/store.db", Now: c.now, MaxEvents: 3})
	testFeedBound(t, &fixture{Store: b, clock: c}, func(at time.Time) { c.advance(at.Sub(c.now())) })
}

func TestRedisFeedBound(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	f := newRedisFixture(t, s, func(c *store.RedisConfig) {
		c.MaxEvents = 3
		c.Wait = func(context.Context, time.Duration) error { return nil }
	})
	testFeedBound(t, f, func(at time.Time) {
		lost := s.do(t, "keys", "*lost:*").([]any)
		if len(lost) != 1 || s.do(t, "pexpiretime", lost[0]) != at.UnixMilli() {
			t.Fatalf("%q is not forgotten at %v", lost, at)
		}
		s.do(t, "pexpire", lost[0], 1) // as if it were that late
		redistest.Eventually(t, "the loss is forgotten", func() bool { return s.do(t, "exists", lost[0]) == int64(0) })
	})
}

// millis is the server's clock.
func (s *redisServer) millis(t testing.TB) int64 {
	t.Helper()
	now, err := s.raw.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now.UnixMilli()
}

// entryMillis is when a position's event was added, by the server's clock.
func entryMillis(t testing.TB, position string) int64 {
	t.Helper()
	_, entry, _ := strings.Cut(position, ".")
	text, _, _ := strings.Cut(entry, "-")
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return ms
}

// TestRedisFeedFailover reads on at a replica that did not get everything, and
// at one whose clock is behind: what the reader had is not there, so it is
// told, whatever came since.
func TestRedisFeedFailover(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	f := newRedisFixture(t, s)
	u := someone()
	f.publish(t, u.Homeserver, f.say("1")...)
	key := store.FeedKey(tagKey, u.Homeserver)
	saved := s.do(t, "dump", key)
	f.publish(t, u.Homeserver, f.say("2")...)
	at := f.expectFeed(t, u.Homeserver, "", false, "1", "2")[1].Position
	s.do(t, "restore", key, 0, saved, "replace")
	f.expectFeed(t, u.Homeserver, at, true, "1")
	redistest.Eventually(t, "the server's clock has moved on", func() bool { return s.millis(t) > entryMillis(t, at) })
	f.publish(t, u.Homeserver, f.say("3")...)
	f.expectFeed(t, u.Homeserver, at, true, "1", "3")
	s.do(t, "del", key)
	f.expectFeed(t, u.Homeserver, at, true)
}

// TestRedisFeedLost says so when the data is gone.
func TestRedisFeedLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	f := newRedisFixture(t, s)
	u := someone()
	f.publish(t, u.Homeserver, f.say("1")...)
	s.do(t, "flushall")
	if _, err := f.feed().ReadFeed(t.Context(), u.Homeserver, ""); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("ReadFeed: %v", err)
	}
	if err := f.Publish(t.Context(), u.Homeserver, f.say("2")...); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("Publish: %v", err)
	}
	if err := f.feed().AwaitFeed(t.Context(), u.Homeserver, ""); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("AwaitFeed: %v", err)
	}
}

// TestBoltFeedRestored opens a copy from before: a number that was given out
// again is no position of the other event.
func TestBoltFeedRestored(t *testing.T) {
	t.Parallel()
	f := boltFixture(t)
	u := someone()
	f.publish(t, u.Homeserver, f.say("1", "2")...)
	at := f.expectFeed(t, u.Homeserver, "", false, "1", "2")[1].Position
	f.Store.(*store.Bolt).TakeBack(t, u.Homeserver)
	f.expectFeed(t, u.Homeserver, at, true, "1")
	f.publish(t, u.Homeserver, f.say("another 2", "3")...)
	f.expectFeed(t, u.Homeserver, at, true, "1", "another 2", "3")
}
