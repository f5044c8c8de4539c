package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/sse"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/wire"
)

// FeedConfig configures the feed of revocations.
type FeedConfig struct {
	Source       store.Feed    // nil: the path does not exist
	Streams      *Streams      // shared with the previous server, see [Server.Succeed]; nil: the server's own
	Heartbeat    time.Duration // interval of comments on an idle stream; 0: 10 s
	Subscribers  int           // greatest number of streams of a homeserver; 0: 64
	WriteTimeout time.Duration // of a write to a reader, after which the stream is closed; 0: 10 s
}

func (c *FeedConfig) complete() {
	c.Heartbeat = cmp.Or(c.Heartbeat, 10*time.Second)
	c.Subscribers = cmp.Or(c.Subscribers, 64)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	if c.Streams == nil {
		c.Streams = NewStreams()
	}
}

var (
	errSubscribers = fmt.Errorf("%w: homeserver has too many streams", discharger.ErrUnavailable)
	errDraining    = fmt.Errorf("%w: draining", discharger.ErrUnavailable)
)

// stream is guard for a request without end: it has neither a budget nor a place.
func (s *Server) stream(next echo.HandlerFunc, c echo.Context) (err error) {
	v := new(visit)
	defer s.access(c, s.cfg.now(), v, new(discharger.Observation))
	defer s.recovered(c, &err)
	s.identify(c.Request(), v)
	c.SetRequest(c.Request().WithContext(context.WithValue(c.Request().Context(), visitKey{}, v)))
	abandonBody(c)
	c.Response().Header().Set("Cache-Control", "no-store")
	if err := next(c); err != nil {
		c.Error(err)
	}
	return nil
}

// revocations sends the feed of a homeserver until the reader disconnects, is too slow,
// or the server drains.
func (s *Server) revocations(c echo.Context, homeserver string) error {
	after := c.Request().Header.Get(wire.HeaderLastEventID)
	if s.draining.Load() {
		return errDraining
	}
	ctx, stop := context.WithCancelCause(c.Request().Context())
	defer stop(nil)
	sub, err := s.cfg.Feed.Streams.enter(s, homeserver, c.Request().Header, func() { stop(errDraining) })
	if err != nil {
		return err
	}
	defer s.cfg.Feed.Streams.leave(sub)
	// The first page is read before the status is sent, which reports an error.
	first, cancel := context.WithTimeout(c.Request().Context(), s.cfg.Timeout)
	page, err := s.cfg.Feed.Source.ReadFeed(first, homeserver, after)
	cancel()
	if err != nil {
		return fmt.Errorf("read feed: %w", err)
	}
	sub.w, sub.rc, sub.after = c.Response(), http.NewResponseController(c.Response()), after
	if err := sub.begin(); err != nil {
		return nil // disconnected
	}
	end := sub.run(ctx, page)
	s.cfg.Log.LogAttrs(c.Request().Context(), slog.LevelDebug, "feed ended",
		slog.String("homeserver", homeserver), slog.String("from", visitOf(c).from()), slog.Any("cause", end))
	return nil
}

// subscriber is one reader of a feed. It reads the retained events itself, page by
// page, and takes further events from the hub, which reads for all. It never holds more
// than one page.
type subscriber struct {
	s      *Server // at which the stream began; another may have succeeded it
	hub    *hub
	header http.Header // of the request
	stop   func()      // ends the stream

	w     *echo.Response
	rc    *http.ResponseController
	after string // position of the last sent event
	buf   []byte
}

// begin sends the headers, and removes the timeouts of other requests.
func (u *subscriber) begin() error {
	if err := u.rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	u.w.Header().Set(echo.HeaderContentType, sse.ContentType)
	u.w.Header().Set("X-Accel-Buffering", "no") // for proxies that buffer
	u.w.WriteHeader(http.StatusOK)
	return u.send()
}

// run sends events until the stream ends, and returns why.
func (u *subscriber) run(ctx context.Context, page store.FeedPage) error {
	if err := u.replay(ctx, page); err != nil {
		return err
	}
	beat := time.NewTicker(u.s.cfg.Feed.Heartbeat)
	defer beat.Stop()
	attached, generation := false, uint64(0)
	for {
		entries, at, ok, wake := u.hub.next(u.after)
		switch {
		case ok:
			attached, generation = true, at
		case attached && at == generation:
			u.hub.metrics.feedCut.WithLabelValues(u.hub.homeserver).Inc()
			return errSlow
		default:
			// The hub is behind this position, or has restarted.
			var err error
			if attached, err = false, u.catchUp(ctx); err != nil {
				return err
			}
		}
		if ctx.Err() != nil { // before the events of what came after the end
			return context.Cause(ctx)
		}
		if len(entries) > 0 {
			if err := u.write(entries); err != nil {
				return err
			}
			beat.Reset(u.s.cfg.Feed.Heartbeat)
			continue
		}
		select {
		case <-wake:
		case <-beat.C:
			if err := u.beat(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// replay sends a page and all following events, and then the event current.
func (u *subscriber) replay(ctx context.Context, page store.FeedPage) error {
	for first := true; ; first = false {
		if page.Gap && (first || u.after != "") {
			u.hub.metrics.feedGaps.WithLabelValues(u.hub.homeserver).Inc()
			u.buf = sse.Append(u.buf, wire.EventGap, "", []byte("{}"))
			u.after = ""
		}
		if len(page.Entries) == 0 {
			break
		}
		if err := u.write(page.Entries); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var err error
		if page, err = u.s.cfg.Feed.Source.ReadFeed(ctx, u.hub.homeserver, u.after); err != nil {
			return err
		}
	}
	u.hub.start(u.after)
	u.buf = sse.Append(u.buf, wire.EventCurrent, "", fmt.Appendf(nil, `{"heartbeat":%d}`, u.s.cfg.Feed.Heartbeat.Milliseconds()))
	return u.send()
}

// catchUp sends the events that the hub does not have.
func (u *subscriber) catchUp(ctx context.Context) error {
	page, err := u.s.cfg.Feed.Source.ReadFeed(ctx, u.hub.homeserver, u.after)
	if err != nil || len(page.Entries) == 0 && (!page.Gap || u.after == "") {
		return err
	}
	return u.replay(ctx, page)
}

// beat sends a heartbeat, which asserts that the feed is being read. If it cannot be
// read, the stream ends.
func (u *subscriber) beat() error {
	if !u.hub.fresh(u.s.cfg.now()) {
		return errUnread
	}
	u.buf = sse.AppendComment(u.buf)
	return u.send()
}

// write sends a batch of events.
func (u *subscriber) write(entries []store.FeedEntry) error {
	for _, e := range entries {
		u.buf = sse.Append(u.buf, wire.EventRevocation, e.Position, e.Line())
	}
	u.after = entries[len(entries)-1].Position
	return u.send()
}

// send writes the buffer. The stream of a reader that is too slow ends.
func (u *subscriber) send() error {
	if err := u.rc.SetWriteDeadline(time.Now().Add(u.s.cfg.Feed.WriteTimeout)); err != nil {
		return err
	}
	_, err := u.w.Write(u.buf)
	u.buf = u.buf[:0]
	if err == nil {
		err = u.rc.Flush()
	}
	if isTimeout(err) {
		u.hub.metrics.feedCut.WithLabelValues(u.hub.homeserver).Inc()
	}
	return err
}
