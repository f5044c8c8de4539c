package cache_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/cache"
)

func newCache[K comparable, V any](t *testing.T, cfg cache.Config[K, V]) *cache.Cache[K, V] {
	t.Helper()
	c, err := cache.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sized keeps texts, and counts their keys and values.
func sized(bytes int) cache.Config[string, string] {
	return cache.Config[string, string]{Bytes: bytes, Size: func(k, v string) int { return len(k) + len(v) }}
}

func TestGetPutRemove(t *testing.T) {
	t.Parallel()
	c := newCache(t, sized(1<<20))
	if _, ok := c.Get("a"); ok {
		t.Error("an entry that was not put")
	}
	c.Put("a", "1")
	c.Put("a", "2")
	if v, ok := c.Get("a"); !ok || v != "2" {
		t.Errorf("got %q, %v", v, ok)
	}
	if v := c.GetOrPut("a", func() string { return "3" }); v != "2" {
		t.Errorf("got %q in place of the kept value", v)
	}
	if v := c.GetOrPut("b", func() string { return "4" }); v != "4" {
		t.Errorf("got %q", v)
	}
	c.Remove("a")
	if _, ok := c.Get("a"); ok {
		t.Error("a removed entry")
	}
	if c.Len() != 1 || c.Bytes() != cache.Overhead+2 {
		t.Errorf("%d entries, %d bytes", c.Len(), c.Bytes())
	}
}

func TestNilKeepsNothing(t *testing.T) {
	t.Parallel()
	var c *cache.Cache[int, int]
	c.Put(1, 1)
	c.Remove(1)
	if _, ok := c.Get(1); ok || c.GetOrPut(1, func() int { return 2 }) != 2 || c.Len() != 0 || c.Bytes() != 0 {
		t.Error("something is kept")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]cache.Config[string, string]{
		"no room":             {},
		"no room for a group": {Bytes: 1, Group: func(string, string) (g [16]byte, ok bool) { return g, true }},
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := cache.New(cfg); err == nil || c != nil {
				t.Error("accepted")
			}
		})
	}
}

// The bound holds for the heap, for all entries and with concurrent use.
func TestBytes(t *testing.T) {
	for _, size := range []int{16, 16 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			const room = 8 << 20
			before := heap()
			c := newCache(t, sized(room))
			var all sync.WaitGroup
			for worker := range 4 {
				all.Go(func() {
					for i := range 4 * room / (size + cache.Overhead) / 4 {
						c.Put(fmt.Sprintf("%d %d", worker, i), strings.Repeat("x", size))
					}
				})
			}
			all.Wait()
			if grown := heap() - before; grown > room*5/4 || c.Bytes() > room || c.Bytes() < room/3 {
				t.Errorf("the heap grew by %d KiB, the cache has %d of %d KiB", grown>>10, c.Bytes()>>10, room>>10)
			}
			runtime.KeepAlive(c)
		})
	}
}

func heap() int {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// A flood of keys that are used once does not evict entries in use.
func TestKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	const users = 50
	c := newCache(t, sized(4*users*(cache.Overhead+20)))
	for i := range users {
		c.Put(fmt.Sprint("used ", i), "x")
	}
	for i := range 10_000 {
		c.Put(fmt.Sprint("once ", i), "x")
		if _, ok := c.Get(fmt.Sprint("used ", i%users)); !ok {
			t.Fatalf("gone after %d others", i)
		}
	}
}

// An entry that is larger than the cache is not kept.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	c := newCache(t, sized(1000))
	c.Put("a", strings.Repeat("x", 2000))
	if c.Len() != 0 || c.Bytes() != 0 {
		t.Errorf("%d entries, %d bytes", c.Len(), c.Bytes())
	}
}

// An entry goes once it was not used for long, and its memory with it.
func TestIdle(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	cfg := sized(100 << 10) // one shard
	cfg.Idle = 10 * time.Minute
	cfg = cfg.WithClock(func() time.Time { return start.Add(time.Duration(ahead.Load())) })
	c := newCache(t, cfg)
	c.Put("used", "x")
	c.Put("idle", "x")
	for range 4 {
		ahead.Add(int64(6 * time.Minute))
		c.Put("another", "x")
		if _, ok := c.Get("used"); !ok {
			t.Fatal("an entry in use is gone")
		}
	}
	if _, ok := c.Get("idle"); ok || c.Len() != 2 {
		t.Errorf("idle: %v, %d entries", ok, c.Len())
	}
}

// A group has as many entries as it may, and gets room again by those that go.
func TestGroups(t *testing.T) {
	t.Parallel()
	cfg := sized(1 << 20)
	cfg.PerGroup = 3
	cfg.Group = func(k, _ string) (g [16]byte, ok bool) { copy(g[:], k[:1]); return g, k[0] != '-' }
	c := newCache(t, cfg)
	for i := range 10 {
		for _, group := range []string{"a", "b", "-"} {
			if v := c.GetOrPut(fmt.Sprint(group, i), func() string { return "x" }); v != "x" {
				t.Errorf("got %q", v)
			}
			c.Put(fmt.Sprint(group, i), "x") // again
		}
	}
	if c.Len() != 3+3+10 {
		t.Errorf("%d entries", c.Len())
	}
	c.Remove("a1")
	c.Put("a7", "x")
	c.Put("a8", "x")
	_, seventh := c.Get("a7")
	_, eighth := c.Get("a8")
	if !seventh || eighth || c.Len() != 3+3+10 {
		t.Errorf("%v, %v, %d entries", seventh, eighth, c.Len())
	}
}

// Entries that go for want of room give their group room.
func TestGroupsOfEvicted(t *testing.T) {
	t.Parallel()
	cfg := sized(50 * (cache.Overhead + 10))
	cfg.PerGroup = 2
	cfg.Group = func(k, _ string) (g [16]byte, ok bool) { copy(g[:], k[:len(k)-1]); return g, true }
	c := newCache(t, cfg)
	for round := range 3 {
		for i := range 1000 {
			for j := range 3 {
				c.Put(fmt.Sprint(i, j), fmt.Sprint(round))
			}
		}
	}
	for i := range 1000 {
		c.Remove(fmt.Sprint(i, 0))
		c.Remove(fmt.Sprint(i, 1))
		c.Remove(fmt.Sprint(i, 2))
	}
	c.Put("70", "x")
	c.Put("71", "x")
	if c.Len() != 2 {
		t.Errorf("%d entries: a group was not given its room back", c.Len())
	}
}

func BenchmarkGet(b *testing.B) {
	c, err := cache.New(cache.Config[string, *int]{Bytes: 64 << 20, Idle: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([]string, 4096)
	for i := range keys {
		keys[i] = fmt.Sprintf("%0800d", i)
		c.Put(keys[i], new(int))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := c.Get(keys[i%len(keys)]); !ok {
			b.Fatal("gone")
		}
	}
}
