package service

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// Epochs reports to the service, once per session and epoch, that a bundle is in use.
// From then on the refresh token before it is invalid. Reports are sent in batches.
type Epochs struct {
	g        *Client
	reported *cache.Cache[caveat.SessionID, uint64] // the latest noted epoch
	woken    chan struct{}

	mu      sync.Mutex
	pending map[caveat.SessionID]wire.Seen
}

const (
	seenDelay = 100 * time.Millisecond // in which a batch is collected
	seenPause = 2 * time.Second        // after a failure
)

func newEpochs(g *Client) (*Epochs, error) {
	reported, err := cache.NewShared(g.cfg.Caches, 1, cache.ByID[caveat.SessionID, uint64](tokenIdle, nil))
	if err != nil {
		return nil, err
	}
	return &Epochs{
		g: g, reported: reported, woken: make(chan struct{}, 1), pending: make(map[caveat.SessionID]wire.Seen),
	}, nil
}

// Note adds an identity's epoch to the pending reports, unless it was noted before.
func (s *Epochs) Note(id homeserver.Identity) {
	if epoch, ok := s.reported.Get(id.Session); ok && epoch >= id.Epoch {
		return
	}
	s.reported.Put(id.Session, id.Epoch)
	s.mu.Lock()
	if p, ok := s.pending[id.Session]; !ok || p.Epoch < id.Epoch {
		s.pending[id.Session] = wire.Seen{User: id.User, Session: id.Session, Epoch: id.Epoch}
	}
	s.mu.Unlock()
	s.Wake()
}

// Wake starts a flush.
func (s *Epochs) Wake() { signal(s.woken) }

// Run sends reports until ctx ends.
func (s *Epochs) Run(ctx context.Context) {
	pause := seenDelay
	for {
		select {
		case <-s.woken:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = seenDelay
		if !s.Flush(ctx) {
			pause = seenPause
			s.Wake()
		}
	}
}

// Report sends the pending report of a session, if there is one. A report that is being
// sent may be sent twice, and one that fails stays pending.
func (s *Epochs) Report(ctx context.Context, id caveat.SessionID) {
	s.mu.Lock()
	one, ok := s.pending[id]
	s.mu.Unlock()
	if ok {
		s.send(ctx, []wire.Seen{one})
	}
}

// Flush sends all pending reports. It returns false if a batch fails.
func (s *Epochs) Flush(ctx context.Context) bool {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.pending))
	s.mu.Unlock()
	for batch := range slices.Chunk(all, wire.MaxSeen) {
		if !s.send(ctx, batch) {
			return false
		}
	}
	return true
}

// send sends reports and removes them from the pending ones.
func (s *Epochs) send(ctx context.Context, batch []wire.Seen) bool {
	err := s.g.API.Seen(ctx, batch)
	s.g.cfg.ObserveSeen(len(batch), err)
	if err != nil {
		s.g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "epoch report failed, retrying", slog.Any("error", err))
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
