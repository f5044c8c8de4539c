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
	sessions [sessionShards]sessionShard
	users    [userShards]userShard
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

type sessionShard struct {
	mu   sync.RWMutex
	ends map[caveat.SessionID]sessionEnd
	peak int // the greatest size of the map since it was made
}

// sessionEnd is how one session ended, and when the entry expires.
type sessionEnd struct {
	until uint32 // Unix seconds, rounded up
	soft  bool
}

type userShard struct {
	mu    sync.RWMutex
	marks map[userDevice]userMarks
	peak  int // likewise
}

// userDevice is a user, or a device of the user.
type userDevice struct{ user, device string }

type userMarks struct {
	marks
	until uint32
}

func (m *memory) init(now time.Time) {
	m.seed, m.tidied = maphash.MakeSeed(), now
	m.all.Store(new(marks))
}

func (m *memory) session(id *caveat.SessionID) *sessionShard {
	return &m.sessions[(uint(id[0])<<8|uint(id[1]))%sessionShards]
}

// user returns the shard of a user and its devices.
func (m *memory) user(name string) *userShard {
	return &m.users[maphash.String(m.seed, name)%userShards]
}

// revoked reports whether a session has ended, and how.
func (m *memory) revoked(id *Identity) (soft, revoked bool) {
	s := m.session(&id.Session)
	s.mu.RLock()
	end, ended := s.ends[id.Session]
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
	ofUser := u.marks[userDevice{user: id.User}]
	ofDevice := userMarks{}
	if id.Device != "" {
		ofDevice = u.marks[userDevice{user: id.User, device: id.Device}]
	}
	u.mu.RUnlock()
	consider(&ofUser.marks)
	consider(&ofDevice.marks)
	return soft, revoked
}

// add adds a revocation.
func (m *memory) add(r *revocation.Event, leeway time.Duration) {
	until := seconds(r.Until.Add(leeway))
	switch {
	case r.Session != (caveat.SessionID{}):
		s := m.session(&r.Session)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ends == nil {
			s.ends = make(map[caveat.SessionID]sessionEnd)
		}
		old, known := s.ends[r.Session]
		s.ends[r.Session] = sessionEnd{until: max(old.until, until), soft: r.Soft || known && old.soft}
		s.peak = max(s.peak, len(s.ends))
	case r.All:
		for {
			old := m.all.Load()
			next := old.add(markOf(r))
			if m.all.CompareAndSwap(old, &next) {
				return
			}
		}
	default:
		u := m.user(r.User)
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.marks == nil {
			u.marks = make(map[userDevice]userMarks)
		}
		key := userDevice{user: r.User, device: r.Device}
		old := u.marks[key]
		u.marks[key] = userMarks{marks: old.add(markOf(r)), until: max(old.until, until)}
		u.peak = max(u.peak, len(u.marks))
		m.anyUser.Store(true)
	}
}

// seconds returns the Unix time, rounded up and clamped to 32 bits.
func seconds(t time.Time) uint32 {
	return uint32(min(max(t.Add(time.Second-1).Unix(), 0), math.MaxUint32))
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

func (s *sessionShard) tidy(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.ends, func(_ caveat.SessionID, e sessionEnd) bool { return now.Unix() >= int64(e.until) })
	s.ends, s.peak = shrink(s.ends, s.peak)
}

func (u *userShard) tidy(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	maps.DeleteFunc(u.marks, func(_ userDevice, x userMarks) bool { return now.Unix() >= int64(x.until) })
	u.marks, u.peak = shrink(u.marks, u.peak)
}

// shrink replaces a map that has become much smaller: a map keeps its memory.
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
		sessions += len(s.ends)
		s.mu.RUnlock()
	}
	for i := range m.users {
		u := &m.users[i]
		u.mu.RLock()
		users += len(u.marks)
		u.mu.RUnlock()
	}
	return sessions, users
}
