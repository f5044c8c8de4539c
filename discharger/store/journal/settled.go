package journal

import (
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
)

// settled remembers entries that are in the file and in the store. It is
// bounded, and forgets in two steps, well before their time in the file is
// over; what it has forgotten is written again.
type settled struct {
	mu         sync.Mutex
	young, old map[revocation.Revocation]struct{}
	turned     time.Time // when young was begun
}

// maxSettled is the size of either half. An entry takes about 200 bytes.
const maxSettled = 1 << 13

// Key is what an entry says: of a session, when it was ended makes no
// difference.
func Key(e revocation.Revocation) revocation.Revocation {
	if e.Kind == revocation.KindSession {
		e.At, e.Generation, e.Keep, e.ExceptKeep = 0, 0, 0, 0
	}
	return e
}

func (s *settled) add(entries []revocation.Revocation, now time.Time, life time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now, life)
	for _, e := range entries {
		if len(s.young) >= maxSettled {
			s.turned = time.Time{}
			s.turn(now, life)
		}
		s.young[Key(e)] = struct{}{}
	}
}

func (s *settled) turn(now time.Time, life time.Duration) {
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

// without returns the entries that are not there.
func (s *settled) without(entries []revocation.Revocation, now time.Time, life time.Duration) []revocation.Revocation {
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

// forget makes room when entries leave the file: all are written again.
func (s *settled) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.young, s.old = nil, nil
}
