package outbox

import (
	"sync"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
)

// Ends remembers how sessions ended. Of ends that the service decided on, it
// forgets some in the course of time, since the service is asked again. Those that
// the service could not be told of yet are kept until it has been: until then, no
// other memory refuses these sessions.
type Ends struct {
	decided *cache.Cache[caveat.SessionID, End]

	count  atomic.Int64 // of unsent
	mu     sync.RWMutex
	unsent map[caveat.SessionID]End // as many as there are orders in the vault
}

func newEnds(b *Outbox) (*Ends, error) {
	decided, err := newCache(b, 3, cache.ByID[caveat.SessionID](endIdle, func(e End) int { return len(e.Reason) + len(e.message) }))
	if err != nil {
		return nil, err
	}
	return &Ends{decided: decided, unsent: make(map[caveat.SessionID]End)}, nil
}

// Get returns how a session ended, if it is known to have ended.
func (s *Ends) Get(id caveat.SessionID) (End, bool) {
	if e, ok := s.decided.Get(id); ok || s.count.Load() == 0 {
		return e, ok
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.unsent[id]
	return e, ok
}

// Put remembers the end of a session.
func (s *Ends) Put(id caveat.SessionID, e End) { s.decided.Put(id, e) }

// Remove forgets it: the session lives.
func (s *Ends) Remove(id caveat.SessionID) {
	s.decided.Remove(id)
	s.sent(id)
}

// hold remembers the end of a session until it was sent to the service.
func (s *Ends) hold(id caveat.SessionID, e End) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsent[id] = e
	s.count.Store(int64(len(s.unsent)))
}

// sent is called when the service has the ends of sessions.
func (s *Ends) sent(ids ...caveat.SessionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.unsent, id)
	}
	s.count.Store(int64(len(s.unsent)))
}

// Len returns the number of decided ends that are remembered.
func (s *Ends) Len() int { return s.decided.Len() }

// Undelivered returns the number of sessions whose end is still to be sent.
func (s *Ends) Undelivered() int { return int(s.count.Load()) }
