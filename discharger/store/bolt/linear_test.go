package bolt_test

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/storetest"
)

func linearBolt(t *testing.T) *bolt.Store {
	t.Helper()
	return openBolt(t, bolt.Config{Path: filepath.Join(t.TempDir(), "sessions.db")})
}

func TestLinearBolt(t *testing.T) {
	t.Parallel()
	storetest.ExpectLinear(t, storetest.Linear{Tabs: 2}.Run(t, &storetest.Flaky{Store: linearBolt(t)}))
}

// TestLinearBroken runs the same with safeguards taken away. Each of these has
// to be noticed.
func TestLinearBroken(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		storetest.Linear
		spoil func(store.Store) store.Store
	}{
		"swap without compare": {storetest.Linear{Tabs: 2}, func(s store.Store) store.Store { return &blind{s} }},
		"reads from a cache": {storetest.Linear{Tabs: 2}, func(s store.Store) store.Store {
			return &stale{Store: s, views: make(map[caveat.SessionID]store.View)}
		}},
		"retries are new requests": {storetest.Linear{Tabs: 2, Limits: session.Limits{Grace: 1}},
			func(s store.Store) store.Store { return &storetest.Flaky{Store: s} }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			for range 30 { // luck is needed for it to show, but not much
				if c.Run(t, c.spoil(linearBolt(t))) == porcupine.Illegal {
					return
				}
			}
			t.Error("it goes unnoticed")
		})
	}
}

// blind writes without comparing.
type blind struct{ store.Store }

func (b *blind) Swap(ctx context.Context, w store.Write) (bool, error) {
	for {
		for i := range w.Changes {
			v, err := b.Store.Load(ctx, w.User, w.Changes[i].Session, w.Changes[i].Device)
			if err != nil {
				return false, err
			}
			switch w.Changes[i].Old = v.Session; {
			case w.Changes[i].Device != revocation.DeviceTag{}:
				w.Changes[i].Old = v.Device
			case w.Changes[i].Session == caveat.SessionID{}:
				w.Changes[i].Old = v.User
			}
		}
		if ok, err := b.Store.Swap(ctx, w); ok || err != nil {
			return ok, err
		}
	}
}

// stale reads each session once.
type stale struct {
	store.Store
	mu    sync.Mutex
	views map[caveat.SessionID]store.View
}

func (s *stale) Load(ctx context.Context, u store.UserKey, id caveat.SessionID, device revocation.DeviceTag) (store.View, error) {
	s.mu.Lock()
	v, ok := s.views[id]
	s.mu.Unlock()
	if ok && rand.IntN(10) > 0 {
		return v, nil
	}
	v, err := s.Store.Load(ctx, u, id, device)
	if err == nil && v.Session != nil {
		s.mu.Lock()
		s.views[id] = v
		s.mu.Unlock()
	}
	return v, err
}
