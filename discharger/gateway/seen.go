package gateway

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// seenReports tell the service, once per session and epoch, that a bundle is in
// use: from then on the refresh token before it is worth nothing. They are
// collected for a moment and sent together.
type seenReports struct {
	g        *Gateway
	reported *recent[caveat.SessionID, uint64] // the latest epoch that was noted
	woken    chan struct{}

	mu      sync.Mutex
	pending map[caveat.SessionID]wire.Seen
}

const (
	seenDelay = 100 * time.Millisecond // for others to come along
	seenPause = 2 * time.Second        // after a failure
)

func newSeenReports(g *Gateway) (*seenReports, error) {
	reported, err := newRecent(g, 1, ofSession[uint64](tokenIdle, nil))
	if err != nil {
		return nil, err
	}
	return &seenReports{
		g: g, reported: reported, woken: make(chan struct{}, 1), pending: make(map[caveat.SessionID]wire.Seen),
	}, nil
}

// isNew reports whether an identity's epoch has not been noted yet.
func (s *seenReports) isNew(id homeserver.Identity) bool {
	epoch, ok := s.reported.get(id.Session)
	return !ok || epoch < id.Epoch
}

// note keeps an epoch to be reported.
func (s *seenReports) note(id homeserver.Identity) {
	s.reported.put(id.Session, id.Epoch)
	s.mu.Lock()
	if p, ok := s.pending[id.Session]; !ok || p.Epoch < id.Epoch {
		s.pending[id.Session] = wire.Seen{User: id.User, Session: id.Session, Epoch: id.Epoch}
	}
	s.mu.Unlock()
	s.wake()
}

// wake has the reports sent.
func (s *seenReports) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// run sends reports until ctx ends.
func (s *seenReports) run(ctx context.Context) {
	pause := seenDelay
	for {
		select {
		case <-s.woken:
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = seenDelay
		if !s.flush(ctx) {
			pause = seenPause
			select {
			case s.woken <- struct{}{}:
			default:
			}
		}
	}
}

// report makes sure that the service knows what was seen of a session, if there
// is anything that it does not know yet: one that is on its way goes twice. What
// cannot be told now stays.
func (s *seenReports) report(ctx context.Context, id caveat.SessionID) {
	s.mu.Lock()
	one, ok := s.pending[id]
	s.mu.Unlock()
	if ok {
		s.send(ctx, []wire.Seen{one})
	}
}

// flush sends everything there is. It reports whether nothing is left.
func (s *seenReports) flush(ctx context.Context) bool {
	for {
		s.mu.Lock()
		batch := make([]wire.Seen, 0, min(len(s.pending), wire.MaxSeen))
		for _, one := range s.pending {
			if len(batch) == wire.MaxSeen {
				break
			}
			batch = append(batch, one)
		}
		s.mu.Unlock()
		if len(batch) == 0 {
			return true
		}
		if !s.send(ctx, batch) {
			return false
		}
	}
}

// send sends reports and takes them off the list.
func (s *seenReports) send(ctx context.Context, batch []wire.Seen) bool {
	err := s.g.once.Seen(ctx, batch)
	s.g.metrics.seen.WithLabelValues(resultOf(err)).Add(float64(len(batch)))
	if err != nil {
		s.g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "what was seen in use is still to be reported", slog.Any("error", err))
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range batch {
		if s.pending[one.Session].Epoch == one.Epoch {
			delete(s.pending, one.Session)
		}
	}
	return true
}
