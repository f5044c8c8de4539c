package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/discharger/discharger/discharger/wire"
)

// decodeAnswer decodes a successful answer into out and returns any other as an
// error: an *UnavailableError if it may be a proxy's.
func decodeAnswer(resp *http.Response, out any) error {
	unavailable := &UnavailableError{
		RetryAfter: retryAfter(resp.Header.Get(wire.HeaderRetryAfter)),
		Err:        fmt.Errorf("answered with status %d", resp.StatusCode),
	}
	if mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || mediaType != wire.ContentType {
		return unavailable
	}
	if resp.StatusCode == http.StatusOK {
		if err := decodeBody(resp, out, requiredMember(out)); err != nil {
			unavailable.Err = err
			return unavailable
		}
		return nil
	}
	var body errorAnswer
	if err := decodeBody(resp, &body, ""); err != nil {
		return unavailable
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized && body.Code == wire.CodePermissionDenied:
		refused := &RefusedError{Message: body.Message}
		if i := body.Info; i != nil {
			refused.Reason, refused.Ended = i.Reason, i.ended()
			refused.SoftLogout = refused.Ended && (i.SoftLogout == nil || *i.SoftLogout)
		}
		return refused
	case resp.StatusCode == http.StatusServiceUnavailable && body.Message != "":
		unavailable.Err = fmt.Errorf("answered with status %d: %.200s", resp.StatusCode, body.Message)
	case resp.StatusCode == statusOf[body.Code]:
		return &BadRequestError{Status: resp.StatusCode, Code: body.Code, Message: body.Message}
	}
	return unavailable
}

// requiredMember returns the name of a member that every answer of a type has, if the
// zero value of the type is a decision: that there are no sessions, or nothing to
// revoke. A maintenance page can be JSON with status 200 too.
func requiredMember(out any) string {
	switch out.(type) {
	case *wire.SessionsResponse:
		return "sessions"
	case *wire.EndedResponse, *wire.Revoked:
		return "ended"
	case *wire.Mark:
		return "now"
	case *wire.Lifted:
		return "lifted"
	}
	return ""
}

const maxAnswer = 4 << 20 // bytes: the sessions of one user, with device names of 2 KiB

var errNotAnswer = errors.New("answer is malformed JSON")

// decodeBody decodes a JSON body into out. An empty member requires none.
func decodeBody(resp *http.Response, out any, member string) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return err
	}
	if len(data) > maxAnswer {
		return errors.New("answer is too large")
	}
	if err := json.Unmarshal(data, out); err != nil {
		return errNotAnswer
	}
	if member == "" {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return errNotAnswer
	}
	if v := members[member]; len(v) == 0 || v[0] == 'n' {
		return fmt.Errorf("answer has no member %q", member)
	}
	return nil
}

// errorAnswer is a [wire.ErrorResponse] with pointers for members that can be absent:
// earlier versions of the service send no Ended, and SoftLogout in every refusal.
type errorAnswer struct {
	Code    string         `json:"Code"`
	Message string         `json:"Message"`
	Info    *refusalAnswer `json:"Info"`
}

type refusalAnswer struct {
	Reason     string `json:"Reason"`
	Ended      *bool  `json:"Ended"`
	SoftLogout *bool  `json:"SoftLogout"` // absent: soft, since a hard end has to be explicit
}

// ended reports whether the session is over. Without Ended it is over if earlier
// versions ended sessions with the reason.
func (i *refusalAnswer) ended() bool {
	if i.Ended != nil {
		return *i.Ended
	}
	switch i.Reason {
	case wire.ReasonSessionEnded, wire.ReasonSessionExpired, wire.ReasonTokenReused,
		"activation_expired": // which this version does not send
		return true
	}
	return false
}

// statusOf has the statuses of the codes that repeating the request does not change.
var statusOf = map[string]int{
	wire.CodeBadRequest:       http.StatusBadRequest,
	wire.CodeUnauthorized:     http.StatusUnauthorized,
	wire.CodeNotFound:         http.StatusNotFound,
	wire.CodeMethodNotAllowed: http.StatusMethodNotAllowed,
	wire.CodeTooLarge:         http.StatusRequestEntityTooLarge,
}

const maxRetryAfter = time.Hour

// retryAfter parses a Retry-After header, a number of seconds or a date; 0 for a
// missing or malformed one.
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(date), 0), maxRetryAfter)
	}
	return 0
}

// minPause is about the shortest pause between two attempts.
const minPause = 250 * time.Millisecond

// newBackoff returns the pauses between attempts: about 250 ms at first, twice as
// long each time, and 15 s at most, each with a random part.
func newBackoff() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: minPause, RandomizationFactor: 1. / 3, Multiplier: 2, MaxInterval: 45 * time.Second / 4,
	}
}

// pauseAfter returns the next pause. It is no shorter than a Retry-After, to which
// it adds, so that clients do not return all at once.
func pauseAfter(err error, pauses *backoff.ExponentialBackOff) time.Duration {
	pause := pauses.NextBackOff()
	if unavailable, ok := errors.AsType[*UnavailableError](err); ok && unavailable.RetryAfter > 0 {
		pause += unavailable.RetryAfter
	}
	return pause
}

// retry repeats an attempt while the service is unavailable, until
// [Config.Patience] or ctx ends. It returns the error of the last attempt.
func (c *Client) retry(ctx context.Context, attempt func(context.Context) error) error {
	end, pauses := time.Now().Add(c.cfg.Patience), newBackoff()
	for {
		err := attempt(ctx)
		unavailable, ok := errors.AsType[*UnavailableError](err)
		if !ok {
			return err
		}
		pause := pauseAfter(err, pauses)
		if time.Now().Add(pause).After(end) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return &UnavailableError{RetryAfter: unavailable.RetryAfter, Err: fmt.Errorf("%w, after: %w", ctx.Err(), unavailable.Err)}
		}
	}
}
