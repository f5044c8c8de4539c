package journal

import (
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
)

// recent is a bounded set of entries that are in the journal and in the store. It
// forgets in two steps, well before the entries leave the journal. An entry that
// was forgotten is written again. Unlike package cache it can be emptied at once,
// when entries leave the journal.
type recent struct {
	mu         sync.Mutex
	young, old map[revocation.Revocation]struct{}
	turned     time.Time // when young was started
}

// maxRecent is the size of either half. An entry takes about 200 bytes.
const maxRecent = 1 << 13

// Key returns the part that identifies an entry. The time at which a
// session was ended is not part of it.
func Key(e revocation.Revocation) revocation.Revocation {
	if e.Kind == revocation.KindSession {
		e.At, e.Generation, e.Keep, e.ExceptKeep = 0, 0, 0, 0
	}
	return e
}

func (s *recent) add(entries []revocation.Revocation, now time.Time, life time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now, life)
	for _, e := range entries {
		if len(s.young) >= maxRecent {
			s.turned = time.Time{}
			s.turn(now, life)
		}
		s.young[Key(e)] = struct{}{}
	}
}

// turn makes the young half the old one if it is older than life.
func (s *recent) turn(now time.Time, life time.Duration) {
	switch age := now.Sub(s.turned); {
	case s.young != nil && age >= 0 && age < life:
		return
	case age >= 0 && age < 2*life || s.turned.IsZero():
		s.old = s.young
	default:
		s.old = nil
	}
	s.young, s.turned = make(map[revocation.Revocation]struct{}), now
}

// without returns the entries that are not in the set.
func (s *recent) without(entries []revocation.Revocation, now time.Time, life time.Duration) []revocation.Revocation {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now, life)
	var out []revocation.Revocation
	for _, e := range entries {
		_, young := s.young[Key(e)]
		if _, old := s.old[Key(e)]; !young && !old {
			out = append(out, e)
		}
	}
	return out
}

// clear empties the set.
func (s *recent) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.young, s.old = nil, nil
}
