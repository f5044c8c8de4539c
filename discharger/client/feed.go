package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"github.com/discharger/discharger/discharger/wire"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
)

// FollowRevocations reads the homeserver's feed on one connection and calls f
// with what comes, in order. It begins after a position, or with all that is
// retained if that is empty, and goes on until ctx ends, f fails or the
// connection does. It needs an API key.
//
// The error is f's own, a *BadRequestError, or an *UnavailableError: then call
// it again, after a pause, with the last position. A line that is longer than
// any could be is such an error, and so is silence: when nothing has come for
// three heartbeats, the line is dead. An event that cannot be understood is no
// error, since it would come again for ever: f gets it as [FeedSkipped].
func (c *Client) FollowRevocations(ctx context.Context, after string, f func(FeedEvent) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := watchdog{limit: max(c.cfg.Timeout, leastSilence)}
	w.timer = time.AfterFunc(w.limit, func() { cancel(errSilent) })
	defer w.timer.Stop()
	err := c.follow(ctx, after, func(e FeedEvent) error {
		if e.Kind == FeedCurrent {
			w.limit = max(3*e.Heartbeat, leastSilence)
		}
		w.timer.Stop() // f may take its time
		err := f(e)
		w.timer.Reset(w.limit)
		if err != nil {
			return &callerError{err}
		}
		return nil
	})
	var caller *callerError
	if errors.As(err, &caller) {
		return caller.err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = &UnavailableError{Err: cause}
	}
	return fmt.Errorf("follow revocations: %w", err)
}

// watchdog ends a connection on which nothing comes any more.
type watchdog struct {
	timer *time.Timer
	limit time.Duration
}

// leastSilence is never taken for a dead line, whatever the heartbeat.
const leastSilence = 15 * time.Second

var errSilent = errors.New("nothing has come for too long")

// callerError tells the caller's own error from those of the connection.
type callerError struct{ err error }

func (e *callerError) Error() string { return e.err.Error() }

func (c *Client) follow(ctx context.Context, after string, f func(FeedEvent) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.cfg.URL+wire.PathRevocations, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", wire.ContentTypeEvents)
	req.Header.Set("Accept-Encoding", "identity")
	c.setHeaders(req)
	if after != "" {
		req.Header.Set(wire.HeaderLastEventID, after)
	}
	client := c.http
	client.Timeout = 0 // which would be that of the whole connection
	resp, err := client.Do(req)
	if err != nil {
		return &UnavailableError{Err: err}
	}
	defer resp.Body.Close()
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && err == nil && mediaType == wire.ContentTypeEvents {
		return readEvents(resp.Body, f)
	}
	if err := decodeAnswer(resp, c.cfg.Clock(), &struct{}{}); err != nil {
		return err
	}
	return &UnavailableError{Err: errors.New("the answer is not a feed")}
}

// maxEventLine bounds a line of the feed, in bytes. The longest that the
// service sends contains a user's and a device's name and is below 8 KiB.
const maxEventLine = 16 << 10

// readEvents reads server-sent events until the stream ends, which is an error.
func readEvents(r io.Reader, f func(FeedEvent) error) error {
	in := bufio.NewReaderSize(r, maxEventLine)
	var e rawEvent
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errors.New("a line is too long")
		} else if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // the feed has no end, and half a line is none
		}
		if err != nil {
			return &UnavailableError{Err: err}
		}
		line = bytes.TrimSuffix(line[:len(line)-1], []byte("\r"))
		event, ok, err := e.take(line)
		if err != nil {
			return &UnavailableError{Err: err}
		}
		if ok {
			if err := f(event); err != nil {
				return err
			}
		}
	}
}

// rawEvent is an event while its lines come in.
type rawEvent struct {
	name, data string
	lines      int    // of data
	id         string // of the latest event that had one: it stays
}

// take takes a line. It reports whether that completes something.
func (e *rawEvent) take(line []byte) (FeedEvent, bool, error) {
	if len(line) == 0 {
		event, ok, err := e.complete()
		*e = rawEvent{id: e.id}
		return event, ok, err
	}
	if line[0] == ':' {
		return FeedEvent{Kind: FeedHeartbeat}, true, nil
	}
	field, value, _ := strings.Cut(string(line), ":")
	value = strings.TrimPrefix(value, " ")
	switch field {
	case "event":
		e.name = value
	case "data":
		if e.lines++; e.lines > 1 {
			e.data += "\n"
		}
		if e.data += value; len(e.data) > maxEventLine {
			return FeedEvent{}, false, errors.New("an event is too long")
		}
	case "id":
		e.id = value
	}
	return FeedEvent{}, false, nil
}

// complete makes something of the lines of an event. Without data there is no
// event, and names that are not known are for later versions.
func (e *rawEvent) complete() (event FeedEvent, ok bool, err error) {
	if e.lines == 0 {
		return FeedEvent{}, false, nil
	}
	switch e.name {
	case wire.EventRevocation:
		event = FeedEvent{Kind: FeedRevocation, Position: e.id}
		if !goodPosition(e.id) {
			return FeedEvent{}, false, errors.New("an event has no position, or one that cannot be resumed at")
		}
		if err := event.Revocation.UnmarshalJSON([]byte(e.data)); err != nil {
			event.Kind, event.Err = FeedSkipped, err
		}
	case wire.EventGap:
		event.Kind = FeedGap
	case wire.EventCurrent:
		event.Kind = FeedCurrent
		event.Heartbeat, err = heartbeat([]byte(e.data))
	default:
		return FeedEvent{}, false, nil
	}
	if err != nil {
		return FeedEvent{}, false, err
	}
	return event, true, nil
}

// goodPosition reports whether a position can go into a header.
func goodPosition(s string) bool {
	return s != "" && len(s) <= 256 && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// heartbeat reads a FeedState. Members that are not known are ignored.
func heartbeat(data []byte) (time.Duration, error) {
	var s wire.FeedState
	if err := jsonv2.Unmarshal(data, &s); err != nil || s.Heartbeat <= 0 || s.Heartbeat > time.Hour.Milliseconds() {
		return 0, errors.New("the state of the feed is not what it should be")
	}
	return time.Duration(s.Heartbeat) * time.Millisecond, nil
}

// FeedKind says what a FeedEvent is.
type FeedKind uint8

// The kinds.
const (
	FeedRevocation FeedKind = iota + 1 // something was revoked
	FeedGap                            // events may be missing before the next
	FeedCurrent                        // the reader knows all there is
	FeedHeartbeat                      // nothing, but the line is alive
	FeedSkipped                        // an event that cannot be understood
)

// FeedEvent is what [Client.FollowRevocations] reads.
type FeedEvent struct {
	Kind       FeedKind
	Position   string          // with FeedRevocation and FeedSkipped: where to resume
	Revocation wire.Revocation // with FeedRevocation
	Err        error           // with FeedSkipped: what is wrong with it
	Heartbeat  time.Duration   // with FeedCurrent: something comes at least this often
}
