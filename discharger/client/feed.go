package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/sse"
	"github.com/discharger/discharger/discharger/wire"
)

// FeedKind is the kind of a FeedEvent.
type FeedKind uint8

// The kinds of feed events.
const (
	FeedRevocation FeedKind = iota + 1 // a revocation
	FeedGap                            // events may be missing; all retained ones follow
	FeedCurrent                        // all retained events were sent
	FeedHeartbeat                      // nothing new; the connection works
	FeedSkipped                        // a malformed revocation, or one of a later version
)

// FeedEvent is an event of the feed of revocations.
type FeedEvent struct {
	Kind       FeedKind
	Position   string           // with FeedRevocation and FeedSkipped: where to resume
	Revocation revocation.Event // with FeedRevocation
	Err        error            // with FeedSkipped: the cause
	Heartbeat  time.Duration    // with FeedCurrent: the longest silence of a working connection
}

// FollowRevocations reads the feed of the homeserver on one connection, until ctx
// ends, and calls f with each event, in order. It starts after a position, or with
// all retained events if that is empty. It needs an API key.
//
// The error is that of f, a *BadRequestError, or an *UnavailableError, after which
// the caller pauses and continues from the last position. A line above 16 KiB and
// silence for three heartbeats are an UnavailableError. A malformed revocation is
// not, since the service would send it again: f receives it as [FeedSkipped].
func (c *Client) FollowRevocations(ctx context.Context, after string, f func(FeedEvent) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := max(c.cfg.Timeout, minSilence)
	watchdog := time.AfterFunc(limit, func() { cancel(errSilent) })
	defer watchdog.Stop()
	var failed error // of f
	err := c.follow(ctx, after, func(e FeedEvent) error {
		if e.Kind == FeedCurrent {
			limit = max(3*e.Heartbeat, minSilence)
		}
		watchdog.Stop() // f may take its time
		failed = f(e)
		watchdog.Reset(limit)
		return failed
	})
	if failed != nil {
		return failed
	}
	if cause := context.Cause(ctx); cause != nil {
		err = &UnavailableError{Err: cause}
	}
	return fmt.Errorf("follow revocations: %w", err)
}

// minSilence is the least silence that counts as a dead connection.
const minSilence = 15 * time.Second

var errSilent = errors.New("connection is silent")

// follow connects and reads events. Its error is never nil.
func (c *Client) follow(ctx context.Context, after string, f func(FeedEvent) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.URL+wire.PathRevocations, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", sse.ContentType)
	req.Header.Set("Accept-Encoding", "identity")
	c.setHeaders(req)
	if after != "" {
		req.Header.Set(wire.HeaderLastEventID, after)
	}
	client := c.http
	client.Timeout = 0 // it would bound the whole connection
	resp, err := client.Do(req)
	if err != nil {
		return &UnavailableError{Err: err}
	}
	defer resp.Body.Close()
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && err == nil && mediaType == sse.ContentType {
		return readEvents(resp.Body, f)
	}
	if err := decodeAnswer(resp, &struct{}{}); err != nil {
		return err
	}
	return &UnavailableError{Err: errors.New("answer is not a feed")}
}

// maxEvent bounds a line of the feed, in bytes. The longest from the service has
// the names of a user and of a device, and is below 8 KiB.
const maxEvent = 16 << 10

// readEvents reads events until the stream ends, which is an error.
func readEvents(r io.Reader, f func(FeedEvent) error) error {
	in := sse.NewReader(r, maxEvent)
	for {
		raw, err := in.Next()
		if err != nil {
			return &UnavailableError{Err: err}
		}
		event, err := parseEvent(raw)
		if err != nil {
			return &UnavailableError{Err: err}
		}
		if event.Kind == 0 {
			continue
		}
		if err := f(event); err != nil {
			return err
		}
	}
}

// parseEvent parses an event. Its Kind is 0 if its name is one of later versions.
func parseEvent(raw sse.Event) (event FeedEvent, err error) {
	switch {
	case raw.Comment:
		event.Kind = FeedHeartbeat
	case raw.Name == wire.EventRevocation:
		if !validPosition(raw.ID) {
			return FeedEvent{}, errors.New("position of an event is missing or malformed")
		}
		event = FeedEvent{Kind: FeedRevocation, Position: raw.ID}
		if err := event.Revocation.UnmarshalJSON([]byte(raw.Data)); err != nil {
			event.Kind, event.Err = FeedSkipped, err
		}
	case raw.Name == wire.EventGap:
		event.Kind = FeedGap
	case raw.Name == wire.EventCurrent:
		event.Kind = FeedCurrent
		event.Heartbeat, err = parseHeartbeat([]byte(raw.Data))
	}
	return event, err
}

// parseHeartbeat parses a FeedState. It ignores unknown members.
func parseHeartbeat(data []byte) (time.Duration, error) {
	var s wire.FeedState
	if err := jsonv2.Unmarshal(data, &s); err != nil || s.Heartbeat <= 0 || s.Heartbeat > time.Hour.Milliseconds() {
		return 0, errors.New("malformed state of the feed")
	}
	return time.Duration(s.Heartbeat) * time.Millisecond, nil
}

// validPosition reports whether a position can be the value of a header.
func validPosition(s string) bool {
	return s != "" && len(s) <= 256 && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
