package secevent

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/revocation"
)

// courier brings the feed of one homeserver to its receiver.
type courier struct {
	cfg    *Config
	to     Receiver
	client *http.Client
	file   string // of the position

	troubles int  // to read the feed, one after the other
	unsaved  bool // the position could not be kept, and that was logged
}

const (
	// lookAgain is after how long the feed is looked at again, with or without
	// a sign of anything new.
	lookAgain = 5 * time.Second
	// readTimeout bounds one look into the feed.
	readTimeout = 10 * time.Second

	firstPause = time.Second     // before what failed is tried again
	maxPause   = 5 * time.Minute // each pause is twice the one before, up to this
)

// pause is how long to wait after so many failures: between half of it and all.
func (c *courier) pause(failures int) time.Duration {
	d := maxPause
	if n := failures - 1; n < 16 {
		d = min(firstPause<<n, maxPause)
	}
	return d/2 + time.Duration(c.cfg.Jitter()*float64(d/2))
}

func (c *courier) log(ctx context.Context, level slog.Level, message string, attrs ...slog.Attr) {
	c.cfg.Log.LogAttrs(ctx, level, message, append([]slog.Attr{slog.String("homeserver", c.to.Homeserver)}, attrs...)...)
}

// run goes on until ctx ends, whatever happens to the feed.
func (c *courier) run(ctx context.Context) {
	c.cfg.Metrics.begin(c.to.Homeserver)
	defer c.cfg.Metrics.end(c.to.Homeserver)
	for ctx.Err() == nil {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		c.troubles++
		d := c.pause(c.troubles)
		c.log(ctx, slog.LevelError, "security events cannot be read, trying again", slog.Any("error", err), slog.Duration("pause", d))
		if c.cfg.Wait(ctx, d) != nil {
			return
		}
	}
}

// follow sends what is in the feed, and what comes, until the feed cannot be
// read or ctx ends.
func (c *courier) follow(ctx context.Context) error {
	after, err := c.load()
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		page, err := c.read(ctx, after)
		if err != nil {
			return err
		}
		c.troubles = 0
		if page.Gap && (first || after != "") {
			c.cfg.Metrics.gap(c.to.Homeserver)
			c.log(ctx, slog.LevelError, "revocations are gone from the feed that the receiver of security events was not told")
			if after != "" {
				after = ""
				c.keep(ctx, after)
			}
		}
		for _, e := range page.Entries {
			if err := c.bring(ctx, e); err != nil {
				return err
			}
			after = e.Position
			c.keep(ctx, after)
		}
		if len(page.Entries) > 0 {
			continue
		}
		c.cfg.Metrics.waiting(c.to.Homeserver, time.Time{})
		if err := c.await(ctx, after); err != nil {
			return err
		}
	}
}

func (c *courier) read(ctx context.Context, after string) (discharger.FeedPage, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	return c.cfg.Feed.ReadFeed(ctx, c.to.Homeserver, after)
}

// await waits for more, but not for too long.
func (c *courier) await(ctx context.Context, after string) error {
	look, cancel := context.WithTimeout(ctx, lookAgain)
	defer cancel()
	err := c.cfg.Feed.AwaitFeed(look, c.to.Homeserver, after)
	if ctx.Err() == nil && look.Err() != nil {
		return nil
	}
	return err
}

// keep notes how far the receiver has come. What cannot be noted is sent again
// after a restart, and no reason to tell the receiver nothing.
func (c *courier) keep(ctx context.Context, position string) {
	err := c.save(position)
	if err != nil && !c.unsaved {
		c.log(ctx, slog.LevelError, "what the receiver of security events was told cannot be noted", slog.Any("error", err))
	}
	c.unsaved = err != nil
}

// bring returns nil when an event is behind us, and an error when ctx ends first
// or the token cannot be made.
func (c *courier) bring(ctx context.Context, entry discharger.FeedEntry) error {
	id := eventID(c.to.Homeserver, entry.Position)
	ended, err := revocation.ReadEvent(entry.Data)
	if err != nil {
		c.cfg.Metrics.gap(c.to.Homeserver)
		c.log(ctx, slog.LevelError, "revocation in the feed cannot be read, the receiver is not told",
			slog.String("position", entry.Position), slog.Any("error", err))
		return nil
	}
	c.cfg.Metrics.waiting(c.to.Homeserver, ended.At)
	token, err := c.sign(id, &ended, c.cfg.Now())
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		a := c.push(ctx, token)
		switch {
		case a.verdict == delivered:
			c.cfg.Metrics.delivered(c.to.Homeserver)
			return nil
		case a.verdict == refused:
			c.cfg.Metrics.refused(c.to.Homeserver)
			c.log(ctx, slog.LevelError, "receiver refused a security event, it is passed over",
				slog.String("jti", id), slog.String("err", a.code))
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		c.cfg.Metrics.failed(c.to.Homeserver)
		d := max(c.pause(attempt), a.notBefore)
		c.log(ctx, slog.LevelWarn, "security event was not delivered, trying again", slog.String("jti", id),
			slog.Int("attempt", attempt), slog.Any("error", a.why), slog.Duration("pause", d))
		if err := c.cfg.Wait(ctx, d); err != nil {
			return err
		}
	}
}
