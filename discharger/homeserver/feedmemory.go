package homeserver

import (
	"hash/maphash"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// memory is the revocations known to a feed. Entries expire and are never withdrawn,
// so the order in which revocations arrive makes no difference.
//
// It consists of many small maps, each with its own lock, so that a look-up never
// waits for more than one insertion, or for the tidying of one map.
type memory struct {
	all      atomic.Pointer[marks] // of the homeserver; never expire
	sessions [sessionShards]shard[caveat.SessionID, sessionEnd]
	users    [userShards]shard[userDevice, userMarks]
	anyUser  atomic.Bool // there has been an entry of a user or a device
	seed     maphash.Seed

	// Used by add and tidy only:
	tidied time.Time
	next   int // shard to tidy
}

const (
	sessionShards = 1024
	userShards    = 64
	tidyPeriod    = time.Minute // in which all shards are tidied once
)

type shard[K comparable, V interface{ over(now int64) bool }] struct {
	mu      sync.RWMutex
	entries map[K]V
	peak    int // the greatest size of the map since it was made
}

// expiry is the Unix time in seconds, rounded up, at which an entry expires.
type expiry uint32

func (e expiry) over(now int64) bool { return now >= int64(e) }

// sessionEnd is how one session ended.
type sessionEnd struct {
	expiry
	soft bool
}

// userDevice is a user, or a device of the user.
type userDevice struct{ user, device string }

type userMarks struct {
	expiry
	marks
}

func (m *memory) init(now time.Time) {
	m.seed, m.tidied = maphash.MakeSeed(), now
	m.all.Store(new(marks))
}

func (m *memory) session(id *caveat.SessionID) *shard[caveat.SessionID, sessionEnd] {
	return &m.sessions[(uint(id[0])<<8|uint(id[1]))%sessionShards]
}

// user returns the shard of a user and its devices.
func (m *memory) user(name string) *shard[userDevice, userMarks] {
	return &m.users[maphash.String(m.seed, name)%userShards]
}

// revoked reports whether a session has ended, and how.
func (m *memory) revoked(id *Identity) (soft, revoked bool) {
	s := m.session(&id.Session)
	s.mu.RLock()
	end, ended := s.entries[id.Session]
	s.mu.RUnlock()
	if ended {
		return end.soft, true
	}
	minted := id.Minted.UnixMilli()
	oldest := int64(math.MaxInt64)
	consider := func(x *marks) {
		if before, kind, covered := x.first(id, minted); covered && (!revoked || before < oldest || before == oldest && kind) {
			oldest, soft, revoked = before, kind, true
		}
	}
	consider(m.all.Load())
	if !m.anyUser.Load() {
		return soft, revoked
	}
	u := m.user(id.User)
	u.mu.RLock()
	ofUser := u.entries[userDevice{user: id.User}]
	ofDevice := userMarks{}
	if id.Device != "" {
		ofDevice = u.entries[userDevice{user: id.User, device: id.Device}]
	}
	u.mu.RUnlock()
	consider(&ofUser.marks)
	consider(&ofDevice.marks)
	return soft, revoked
}

// add adds a revocation.
func (m *memory) add(r *revocation.Event, leeway time.Duration) {
	until := expiry(min(max(r.Until.Add(leeway+time.Second-1).Unix(), 0), math.MaxUint32))
	switch {
	case r.Session != (caveat.SessionID{}):
		m.session(&r.Session).change(r.Session, func(old sessionEnd) sessionEnd {
			return sessionEnd{max(old.expiry, until), r.Soft || old.soft}
		})
	case r.All:
		for {
			old := m.all.Load()
			next := old.add(markOf(r))
			if m.all.CompareAndSwap(old, &next) {
				return
			}
		}
	default:
		m.user(r.User).change(userDevice{user: r.User, device: r.Device}, func(old userMarks) userMarks {
			return userMarks{max(old.expiry, until), old.add(markOf(r))}
		})
		m.anyUser.Store(true)
	}
}

// change replaces the value of a key, zero if it has none.
func (s *shard[K, V]) change(key K, f func(V) V) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = make(map[K]V)
	}
	s.entries[key] = f(s.entries[key])
	s.peak = max(s.peak, len(s.entries))
}

// tidy removes expired entries, of a few shards at a time. It must not run
// concurrently with itself.
func (m *memory) tidy(now time.Time) {
	const each = tidyPeriod / sessionShards
	due := int(now.Sub(m.tidied) / each)
	switch {
	case due < 0 || due >= sessionShards: // the clock was set, or the last call was long ago
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

// tidy removes expired entries. It replaces a map that has become much smaller, since
// a map keeps its memory.
func (s *shard[K, V]) tidy(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.entries, func(_ K, v V) bool { return v.over(now.Unix()) })
	if len(s.entries) < s.peak/4 {
		small := make(map[K]V, len(s.entries))
		maps.Copy(small, s.entries)
		s.entries, s.peak = small, len(small)
	}
}

func (s *shard[K, V]) size() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.entries)
}

func (m *memory) size() (sessions, users int) {
	for i := range m.sessions {
		sessions += m.sessions[i].size()
	}
	for i := range m.users {
		users += m.users[i].size()
	}
	return sessions, users
}
