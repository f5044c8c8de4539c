package server

import (
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

// FeedConfig is how homeservers follow what is revoked. The zero value of each
// is the documented default.
type FeedConfig struct {
	// Source is where it is read. Nil: there is no such path.
	Source store.Feed
	// Streams are those that the server shares with the one before it, see
	// [Server.Succeed]. Nil: it has its own.
	Streams *Streams
	// Heartbeat is how often a stream says something when there is nothing to
	// say; 0: 10 s.
	Heartbeat time.Duration
	// Subscribers is how many streams a homeserver may have here; 0: 64.
	Subscribers int
	// WriteTimeout is how long a reader may take for what it is sent before it
	// is cut off; 0: 10 s.
	WriteTimeout time.Duration
}

func (c *FeedConfig) complete() {
	if c.Heartbeat == 0 {
		c.Heartbeat = 10 * time.Second
	}
	if c.Subscribers == 0 {
		c.Subscribers = 64
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = 10 * time.Second
	}
	if c.Streams == nil {
		c.Streams = NewStreams()
	}
}

var (
	errSubscribers = fmt.Errorf("%w: this homeserver follows the feed too often already", discharger.ErrUnavailable)
	errDraining    = fmt.Errorf("%w: draining", discharger.ErrUnavailable)
)

// stream is guard for what has no end: it has no budget, and no place among the
// requests that have one.
func (s *Server) stream(next echo.HandlerFunc, c echo.Context) (err error) {
	v := new(visit)
	defer s.access(c, s.cfg.Now(), v, new(discharger.Observation))
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

// revocations sends the feed of a homeserver until the reader goes away, is too
// slow, or the server drains.
func (s *Server) revocations(c echo.Context, homeserver string) error {
	after := c.Request().Header.Get(wire.HeaderLastEventID)
	if s.draining.Load() {
		return errDraining
	}
	sub, err := s.streams.enter(s, homeserver, c.Request().Header)
	if err != nil {
		return err
	}
	defer s.streams.leave(sub)
	// What cannot be read is said while there is still a status to say it with.
	ctx, cancel := context.WithTimeout(c.Request().Context(), s.cfg.Timeout)
	page, err := s.cfg.Feed.Source.ReadFeed(ctx, homeserver, after)
	cancel()
	if err != nil {
		return fmt.Errorf("read feed: %w", err)
	}
	sub.w, sub.rc, sub.after = c.Response(), http.NewResponseController(c.Response()), after
	if err := sub.begin(); err != nil {
		return nil // gone already
	}
	end := sub.run(c.Request().Context(), page)
	s.cfg.Log.LogAttrs(c.Request().Context(), slog.LevelDebug, "feed ended",
		slog.String("homeserver", homeserver), slog.String("from", visitOf(c).from()), slog.Any("cause", end))
	return nil
}

// subscriber is one reader of a feed. It goes through what is retained by
// itself, page by page, and when it has caught up takes what the hub reads for
// all. It never holds more than one page.
type subscriber struct {
	s      *Server // at which it began; another may have succeeded it
	hub    *hub
	header http.Header   // of the request
	ended  chan struct{} // closed when it has to end

	w     *echo.Response
	rc    *http.ResponseController
	after string // position of what was sent last
	buf   []byte
}

// begin sends the headers, and takes away the time limits of a usual request.
func (u *subscriber) begin() error {
	if err := u.rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	u.w.Header().Set(echo.HeaderContentType, sse.ContentType)
	u.w.Header().Set("X-Accel-Buffering", "no") // proxies that would wait for more
	u.w.WriteHeader(http.StatusOK)
	return u.send()
}

// run sends until something ends it, and says what.
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
			u.s.feedMetrics.cutOff(u.hub.homeserver)
			return errSlow
		default:
			// The hub is not here: it has not come this far yet, or begins anew.
			var err error
			if attached, err = false, u.catchUp(ctx); err != nil {
				return err
			}
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
		case <-u.ended:
			return errDraining
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replay sends a page and all that comes after it, and then says that this was
// all.
func (u *subscriber) replay(ctx context.Context, page store.FeedPage) error {
	for first := true; ; first = false {
		if page.Gap && (first || u.after != "") {
			u.s.feedMetrics.gap(u.hub.homeserver)
			u.buf = sse.Append(u.buf, wire.EventGap, "", []byte("{}"))
			u.after = ""
		}
		if len(page.Entries) == 0 {
			break
		}
		if err := u.write(page.Entries); err != nil {
			return err
		}
		select {
		case <-u.ended:
			return errDraining
		default:
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

// catchUp sends what the hub has not, if there is anything.
func (u *subscriber) catchUp(ctx context.Context) error {
	page, err := u.s.cfg.Feed.Source.ReadFeed(ctx, u.hub.homeserver, u.after)
	if err != nil || len(page.Entries) == 0 && (!page.Gap || u.after == "") {
		return err
	}
	return u.replay(ctx, page)
}

// beat shows that the line is alive, and that whatever was revoked would have
// been said: if the feed cannot be read, the reader had better know.
func (u *subscriber) beat() error {
	if !u.hub.fresh(u.s.cfg.Now()) {
		return errUnread
	}
	u.buf = sse.AppendComment(u.buf)
	return u.send()
}

// write sends events.
func (u *subscriber) write(entries []store.FeedEntry) error {
	for _, e := range entries {
		u.buf = sse.Append(u.buf, wire.EventRevocation, e.Position, e.Line())
	}
	u.after = entries[len(entries)-1].Position
	return u.send()
}

// send hands over what has been put together. A reader that does not take it in
// time is cut off.
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
		u.s.feedMetrics.cutOff(u.hub.homeserver)
	}
	return err
}
