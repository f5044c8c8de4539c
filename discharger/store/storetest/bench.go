package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// BenchUsers is how many users, of one session each, a benchmark works on.
const BenchUsers = 2000

type benchSession struct {
	User store.UserKey
	Id   caveat.SessionID
}

// BenchContext has a deadline, as every request has.
func BenchContext(b *testing.B) context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	b.Cleanup(cancel)
	return ctx
}

// BenchSessions adds sessions for a benchmark and returns them.
func BenchSessions(b *testing.B, s store.Store) []benchSession {
	b.Helper()
	out := make([]benchSession, BenchUsers)
	Spread(b, 64, BenchUsers, func(i int) {
		out[i] = benchSession{store.UserKey{Homeserver: "example.org", User: fmt.Sprintf("@user%d:example.org", i)}, NewSession()}
		w := One(out[i].User, store.Change{Session: out[i].Id, New: make([]byte, 75), Expires: time.Now().Add(time.Hour)})
		if ok, err := s.Swap(b.Context(), w); !ok || err != nil {
			b.Error(ok, err)
		}
	})
	return out
}

// Spread has some callers make n calls between them.
func Spread(b *testing.B, callers, n int, call func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				call(i)
			}
		})
	}
	wg.Wait()
}

// BenchLoad measures Load with concurrent callers.
func BenchLoad(b *testing.B, s store.Store, callers int) {
	sessions := BenchSessions(b, s)
	ctx := BenchContext(b)
	b.ReportAllocs()
	b.ResetTimer()
	Spread(b, callers, b.N, func(i int) {
		at := sessions[i*7919%BenchUsers]
		if v, err := s.Load(ctx, at.User, at.Id, revocation.DeviceTag{}); err != nil || v.Session == nil {
			b.Error(v, err)
		}
	})
}

// BenchSwap measures Swap with concurrent callers.
func BenchSwap(b *testing.B, s store.Store, callers int) {
	sessions := BenchSessions(b, s)
	now := make([]atomic.Pointer[[]byte], BenchUsers)
	ctx, start := BenchContext(b), make([]byte, 75)
	for i := range now {
		now[i].Store(&start)
	}
	b.ReportAllocs()
	b.ResetTimer()
	Spread(b, callers, b.N, func(i int) {
		k := i * 7919 % BenchUsers
		next := fmt.Appendf(nil, "%-75d", i)
		w := One(sessions[k].User, store.Change{Session: sessions[k].Id, Old: *now[k].Load(), New: next, Expires: time.Now().Add(time.Hour)})
		if _, err := s.Swap(ctx, w); err != nil {
			b.Error(err)
		}
		now[k].Store(&next)
	})
}

// BenchCallers are the numbers of concurrent callers in benchmarks.
var BenchCallers = []int{1, 64}
