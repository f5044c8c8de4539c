package outbox

import (
	"sync"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
)

// Ends holds how sessions ended. Ends decided by the service are cached. Ends that were
// not sent to the service yet are kept until then: only they refuse these sessions.
type Ends struct {
	decided *cache.Cache[caveat.SessionID, End]

	count  atomic.Int64 // of unsent
	mu     sync.RWMutex
	unsent map[caveat.SessionID]End // bounded by the jobs in the file
}

func newEnds(caches *cache.Budget) (*Ends, error) {
	decided, err := cache.NewShared(caches, 3, cache.ByID[caveat.SessionID](endIdle, func(e End) int { return len(e.Cause) + len(e.message) }))
	if err != nil {
		return nil, err
	}
	return &Ends{decided: decided, unsent: make(map[caveat.SessionID]End)}, nil
}

// Get returns how a session ended. It reports false if no end is known.
func (s *Ends) Get(id caveat.SessionID) (End, bool) {
	if e, ok := s.decided.Get(id); ok || s.count.Load() == 0 {
		return e, ok
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.unsent[id]
	return e, ok
}

// Put caches the end of a session.
func (s *Ends) Put(id caveat.SessionID, e End) { s.decided.Put(id, e) }

// Remove removes the end of a session that is live.
func (s *Ends) Remove(id caveat.SessionID) {
	s.decided.Remove(id)
	s.sent(id)
}

// hold keeps the end of a session until [Ends.sent].
func (s *Ends) hold(id caveat.SessionID, e End) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsent[id] = e
	s.count.Store(int64(len(s.unsent)))
}

// sent removes ends that the service has accepted.
func (s *Ends) sent(ids ...caveat.SessionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.unsent, id)
	}
	s.count.Store(int64(len(s.unsent)))
}
