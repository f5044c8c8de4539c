package homeserver

import (
	"hash/maphash"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
)

// memory is what a feed remembers. Nothing in it is ever taken back, only
// forgotten, so the order in which revocations come makes no difference.
//
// It is cut into many small maps, each with a lock of its own, so that looking
// up never waits for more than one insertion, or for the tidying of one map.
type memory struct {
	before   atomic.Int64 // everything that was minted earlier is over, Unix ms
	sessions [sessionShards]sessionShard
	users    [userShards]userShard
	anyUser  atomic.Bool // there has been a user
	seed     maphash.Seed

	// Of whoever adds:
	tidied time.Time
	next   int // shard to tidy
}

const (
	sessionShards = 1024
	userShards    = 64
	tidyPeriod    = time.Minute // in which all shards are tidied once
)

type sessionShard struct {
	mu    sync.RWMutex
	until map[caveat.SessionID]uint32 // Unix seconds, rounded up
	peak  int                         // the most there were since the map was made
}

type userShard struct {
	mu    sync.RWMutex
	until map[string]userRevocation
	peak  int // likewise
}

// userRevocation is what all revocations of one user come to: every session
// minted earlier than before is over, but for one session only if it was
// minted earlier than exceptBefore. Any two of these come to another. Without
// an exception, both times are the same.
type userRevocation struct {
	before, exceptBefore int64 // Unix ms
	except               caveat.SessionID
	until                uint32
}

func (m *memory) init(now time.Time) {
	m.seed, m.tidied = maphash.MakeSeed(), now
	m.before.Store(math.MinInt64)
}

func (m *memory) session(id *caveat.SessionID) *sessionShard {
	return &m.sessions[(uint(id[0])<<8|uint(id[1]))%sessionShards]
}

func (m *memory) user(name string) *userShard {
	return &m.users[maphash.String(m.seed, name)%userShards]
}

func (m *memory) revoked(id *Identity) bool {
	minted := id.Minted.UnixMilli()
	if minted < m.before.Load() {
		return true
	}
	s := m.session(&id.Session)
	s.mu.RLock()
	_, ended := s.until[id.Session]
	s.mu.RUnlock()
	if ended || !m.anyUser.Load() {
		return ended
	}
	u := m.user(id.User)
	u.mu.RLock()
	r, ok := u.until[id.User]
	u.mu.RUnlock()
	return ok && r.covers(&id.Session, minted)
}

func (r *userRevocation) covers(session *caveat.SessionID, minted int64) bool {
	if r.except == *session {
		return minted < r.exceptBefore
	}
	return minted < r.before
}

// add remembers a revocation.
func (m *memory) add(r *api.Revocation, leeway time.Duration) {
	until := seconds(r.Until.Add(leeway))
	switch {
	case r.Session != (caveat.SessionID{}):
		s := m.session(&r.Session)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.until == nil {
			s.until = make(map[caveat.SessionID]uint32)
		}
		s.until[r.Session] = max(s.until[r.Session], until)
		s.peak = max(s.peak, len(s.until))
	case r.All: // a number, which costs nothing to keep
		for b := r.Before.UnixMilli(); ; {
			old := m.before.Load()
			if old >= b || m.before.CompareAndSwap(old, b) {
				return
			}
		}
	default:
		u := m.user(r.User)
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.until == nil {
			u.until = make(map[string]userRevocation)
		}
		next := userRevocation{before: r.Before.UnixMilli(), except: r.Except, until: until}
		next.exceptBefore = next.before
		if r.Except != (caveat.SessionID{}) {
			next.exceptBefore = math.MinInt64
		}
		if old, ok := u.until[r.User]; ok {
			next = next.and(old)
		}
		u.until[r.User] = next
		u.peak = max(u.peak, len(u.until))
		m.anyUser.Store(true)
	}
}

// and is what two revocations come to. Of two exceptions, the one from the
// earlier revocation is covered by the later one.
func (r userRevocation) and(o userRevocation) userRevocation {
	if r.before < o.before {
		r, o = o, r
	}
	out := r
	out.until = max(r.until, o.until)
	switch {
	case r.except == (caveat.SessionID{}): // covers all that the earlier one does, and more
	case r.except == o.except:
		out.exceptBefore = max(r.exceptBefore, o.exceptBefore)
	default:
		out.exceptBefore = max(r.exceptBefore, o.before)
	}
	return out
}

// seconds rounds up. What is too far away is as good as never.
func seconds(t time.Time) uint32 {
	return uint32(min(max(t.Add(time.Second-1).Unix(), 0), math.MaxUint32))
}

// tidy forgets what is over, a few shards at a time. It is called by whoever
// adds.
func (m *memory) tidy(now time.Time) {
	const each = tidyPeriod / sessionShards
	due := int(now.Sub(m.tidied) / each)
	switch {
	case due < 0 || due >= sessionShards: // a clock was set, or it has been long
		due, m.tidied = sessionShards, now
	case due == 0:
		return
	default:
		m.tidied = m.tidied.Add(time.Duration(due) * each)
	}
	for range due {
		m.sessions[m.next].tidy(now)
		if m.next%(sessionShards/userShards) == 0 {
			m.users[m.next/(sessionShards/userShards)].tidy(now)
		}
		m.next = (m.next + 1) % sessionShards
	}
}

func (s *sessionShard) tidy(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.until, func(_ caveat.SessionID, until uint32) bool { return now.Unix() >= int64(until) })
	s.until, s.peak = shrink(s.until, s.peak)
}

func (u *userShard) tidy(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.until, func(_ string, r userRevocation) bool { return now.Unix() >= int64(r.until) })
	u.until, u.peak = shrink(u.until, u.peak)
}

// shrink gives back what a map needed that has much less in it now: a map does
// not do so by itself.
func shrink[K comparable, V any](m map[K]V, peak int) (map[K]V, int) {
	if len(m) >= peak/4 {
		return m, peak
	}
	small := make(map[K]V, len(m))
	maps.Copy(small, m)
	return small, len(small)
}

func (m *memory) size() (sessions, users int) {
	for i := range m.sessions {
		s := &m.sessions[i]
		s.mu.RLock()
		sessions += len(s.until)
		s.mu.RUnlock()
	}
	for i := range m.users {
		u := &m.users[i]
		u.mu.RLock()
		users += len(u.until)
		u.mu.RUnlock()
	}
	return sessions, users
}
