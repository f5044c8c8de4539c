package server

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/store"
)

var (
	errSlow   = errors.New("reader is too slow")
	errUnread = errors.New("feed cannot be read")
)

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// hub reads one homeserver's feed for all its subscribers, and keeps the latest events
// for them. A subscriber that falls behind those is too slow.
type hub struct {
	source      store.Feed
	homeserver  string
	now         func() time.Time
	metrics     *Metrics
	ctx         context.Context // ends with the last subscriber
	stop        context.CancelFunc
	subscribers int // under Streams.mu

	mu         sync.Mutex
	started    bool
	generation uint64                     // incremented when the feed restarts
	ring       [hubEvents]store.FeedEntry // event n is at n modulo the length
	first, end uint64                     // kept events: [first, end)
	before     string                     // position of the event before the first
	index      map[string]uint64          // their positions
	wake       chan struct{}              // closed when there is more
	readAt     time.Time                  // when the feed was last read
}

const (
	// hubEvents is how many events a subscriber can be behind.
	hubEvents = 4096
	// hubLook is the interval at which the feed is read without a wake-up.
	hubLook = 5 * time.Second
	// hubBatch is the greatest number of events of one write.
	hubBatch = 256
	// hubPause is the pause after an error.
	hubPause = 250 * time.Millisecond
)

// start begins to read after the position of a subscriber; only the first call counts.
func (h *hub) start(after string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started {
		return
	}
	h.started, h.before, h.readAt = true, after, h.now()
	go h.run(after)
}

func (h *hub) run(after string) {
	for h.ctx.Err() == nil {
		page, err := h.source.ReadFeed(h.ctx, h.homeserver, after)
		if err == nil {
			after = h.push(page, after)
			if len(page.Entries) == 0 {
				err = h.await(after)
			}
		}
		if err != nil && h.ctx.Err() == nil {
			select {
			case <-time.After(hubPause):
			case <-h.ctx.Done():
			}
		}
	}
}

// await blocks until there may be more events, at most for hubLook.
func (h *hub) await(after string) error {
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	look := time.AfterFunc(hubLook, cancel)
	defer look.Stop()
	err := h.source.AwaitFeed(ctx, h.homeserver, after)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// push adds a page and returns the position to read after.
func (h *hub) push(page store.FeedPage, after string) string {
	now := h.now()
	h.mu.Lock()
	h.readAt = now
	gap := page.Gap && after != ""
	if gap { // the page does not follow the kept events
		h.generation++
		h.first, h.before = h.end, ""
		clear(h.index)
		after = ""
	}
	for _, e := range page.Entries {
		if h.end-h.first == hubEvents {
			old := &h.ring[h.first%hubEvents]
			h.before = old.Position
			delete(h.index, old.Position)
			h.first++
		}
		h.ring[h.end%hubEvents] = e
		h.index[e.Position] = h.end
		h.end++
		after = e.Position
	}
	if gap || len(page.Entries) > 0 {
		close(h.wake)
		h.wake = make(chan struct{})
	}
	h.mu.Unlock()
	for _, e := range page.Entries {
		if at, ok := e.Time(); ok {
			h.metrics.feedEvents.WithLabelValues(h.homeserver).Inc()
			h.metrics.feedLag.WithLabelValues(h.homeserver).Observe(max(now.Sub(at), 0).Seconds())
		}
	}
	return after
}

// next returns the events after a position, and a channel that is closed when there
// are more. ok is false if the hub does not have the position; with the generation the
// caller decides whether the hub had it.
func (h *hub) next(after string) (entries []store.FeedEntry, generation uint64, ok bool, wake <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	from := h.first
	if after != h.before {
		n, known := h.index[after]
		if !known {
			return nil, h.generation, false, h.wake
		}
		from = n + 1
	}
	for n := from; n < min(h.end, from+hubBatch); n++ {
		entries = append(entries, h.ring[n%hubEvents])
	}
	return entries, h.generation, true, h.wake
}

// fresh reports whether the feed has been read recently.
func (h *hub) fresh(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return now.Sub(h.readAt) <= 3*hubLook
}
