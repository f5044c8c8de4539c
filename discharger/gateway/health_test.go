package gateway

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// A gateway is ready without the service, but not without the homeserver or a writable
// outbox.
func TestHealth(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		testkit.Eventually(t, "every part works", func() bool { return w.gateway.Health(ctx) == Health{} })
		w.down.Store(true)
		w.service.CloseClientConnections()
		testkit.Eventually(t, "the feed is stale", func() bool { return errors.Is(w.gateway.Health(ctx).Service, errFeedStale) })
		if h := w.gateway.Health(ctx); !h.Ready() {
			t.Errorf("%+v", h)
		}

		w.hs.set(func(s *stub) { s.failVersions = true })
		w.forward(homeserverLife)
		var status *upstream.StatusError
		if h := w.gateway.Health(ctx); h.Ready() || !errors.As(h.Homeserver, &status) || h.Outbox != nil {
			t.Errorf("%+v", h)
		}
		w.hs.set(func(s *stub) { s.failVersions = false })
		w.forward(failureLife)
		if h := w.gateway.Health(ctx); !h.Ready() {
			t.Errorf("%+v", h)
		}
		w.hs.leave()
		w.forward(homeserverLife)
		if h := w.gateway.Health(ctx); h.Ready() || h.Homeserver == nil || h.Outbox != nil {
			t.Errorf("%+v", h)
		}
	})
}

// A read-only outbox is reported.
func TestHealthOfOutbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.stopped = time.Now() })
	if h := w.gateway.Health(t.Context()); h.Outbox != nil {
		t.Fatalf("%+v", h)
	}
	w.gateway.cancel() // no other goroutine uses the file now
	w.gateway.background.Wait()
	w.gateway.outbox.Stop()
	testkit.NoError(t, w.gateway.outbox.Store.Close())
	if h := w.gateway.Health(t.Context()); h.Outbox != nil {
		t.Errorf("recent result is not cached: %+v", h)
	}
	w.forward(outboxProbeLife)
	if h := w.gateway.Health(t.Context()); h.Ready() || h.Outbox == nil || h.Homeserver != nil {
		t.Errorf("%+v", h)
	}
}

// Concurrent health checks cause one request to the homeserver, and return within their
// deadline.
func TestHealthIsCheap(t *testing.T) {
	t.Parallel()
	frozen := time.Now()
	w := newWorld(t, func(w *world) { w.cfg.clock = func() time.Time { return frozen } })
	before := w.hs.count()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if h := w.gateway.Health(t.Context()); !h.Ready() {
				t.Errorf("%+v", h)
			}
		})
	}
	all.Wait()
	if n := w.hs.count() - before; n != 1 {
		t.Errorf("%d requests to the homeserver", n)
	}

	release := make(chan struct{})
	arrived := make(chan struct{}, 1)
	p := probe{life: time.Hour, timeout: time.Hour, check: func(context.Context) error {
		arrived <- struct{}{}
		<-release
		return nil
	}}
	now := w.now()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.result(ctx, now); !errors.Is(err, errProbeTimeout) {
		t.Errorf("%v", err)
	}
	<-arrived
	close(release)
	if err := p.result(t.Context(), now); err != nil {
		t.Errorf("%v", err)
	}
	if err := p.result(t.Context(), now.Add(time.Hour-1)); err != nil || len(arrived) > 0 {
		t.Errorf("result is not cached, or %v", err)
	}
}
