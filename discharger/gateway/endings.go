package gateway

import (
	"sync"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/caveat"
)

// endings remembers how sessions ended. Of ends that the service decided on, it
// forgets some in the course of time, since the service is asked again. Those that
// the service could not be told of yet are kept until it has been: until then, no
// other memory refuses these sessions.
type endings struct {
	decided *recent[caveat.SessionID, ending]

	count  atomic.Int64 // of unsent
	mu     sync.RWMutex
	unsent map[caveat.SessionID]ending // as many as there are orders in the vault
}

func newEndings(g *Gateway) (*endings, error) {
	decided, err := newRecent(g, 3, ofSession(endIdle, func(e ending) int { return len(e.reason) + len(e.message) }))
	if err != nil {
		return nil, err
	}
	return &endings{decided: decided, unsent: make(map[caveat.SessionID]ending)}, nil
}

// get returns how a session ended, if it is known to have ended.
func (s *endings) get(id caveat.SessionID) (ending, bool) {
	if e, ok := s.decided.get(id); ok || s.count.Load() == 0 {
		return e, ok
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.unsent[id]
	return e, ok
}

// put remembers the end of a session.
func (s *endings) put(id caveat.SessionID, e ending) { s.decided.put(id, e) }

// remove forgets it: the session lives.
func (s *endings) remove(id caveat.SessionID) {
	s.decided.remove(id)
	s.sent(id)
}

// hold remembers the end of a session until it was sent to the service.
func (s *endings) hold(id caveat.SessionID, e ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsent[id] = e
	s.count.Store(int64(len(s.unsent)))
}

// sent is called when the service has the ends of sessions.
func (s *endings) sent(ids ...caveat.SessionID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.unsent, id)
	}
	s.count.Store(int64(len(s.unsent)))
}
