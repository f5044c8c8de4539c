package client

import (
	"context"
	"errors"
	"fmt"
	"github.com/discharger/discharger/discharger/wire"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// decodeAnswer decodes an answer into out, or makes an error of it. Whatever it
// does not know for certain is an *UnavailableError: proxies answer too, with
// any status they like.
func decodeAnswer(resp *http.Response, now time.Time, out any) error {
	unavailable := &UnavailableError{
		RetryAfter: retryAfter(resp.Header.Get(wire.HeaderRetryAfter), now),
		Err:        fmt.Errorf("answered with status %d", resp.StatusCode),
	}
	if mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || mediaType != wire.ContentType {
		return unavailable
	}
	if resp.StatusCode == http.StatusOK {
		if err := decodeBody(resp, out, memberOf(out)); err != nil {
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
	case resp.StatusCode == statusOf(body.Code):
		return &BadRequestError{Status: resp.StatusCode, Code: body.Code, Message: body.Message}
	}
	return unavailable
}

// memberOf returns the name of a member that every answer of a type has, if the zero
// value of the type would be taken for a decision: that a user has no sessions, or
// that there was nothing to revoke. Something else than the service may answer in
// JSON too, a maintenance page for instance.
func memberOf(out any) string {
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

// errorAnswer is an [wire.ErrorResponse] as it is read. Services of earlier versions
// send no Ended, and SoftLogout in every refusal.
type errorAnswer struct {
	Code    string         `json:"Code"`
	Message string         `json:"Message"`
	Info    *refusalAnswer `json:"Info"`
}

type refusalAnswer struct {
	Reason     string `json:"Reason"`
	Ended      *bool  `json:"Ended"`
	SoftLogout *bool  `json:"SoftLogout"` // a hard end is a decision, and so it is in the answer
}

// ended reports whether the session is over: without Ended, if the reason is
// one that ended sessions in earlier versions.
func (i *refusalAnswer) ended() bool {
	if i.Ended != nil {
		return *i.Ended
	}
	switch i.Reason {
	case wire.ReasonSessionEnded, wire.ReasonSessionExpired, wire.ReasonTokenReused, "activation_expired":
		return true
	}
	return false
}

// statusOf gives the status that goes with the codes of a request that cannot
// be mended by repeating it, and 0 for any other code.
func statusOf(code string) int {
	switch code {
	case wire.CodeBadRequest:
		return http.StatusBadRequest
	case wire.CodeUnauthorized:
		return http.StatusUnauthorized
	case wire.CodeNotFound:
		return http.StatusNotFound
	case wire.CodeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case wire.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return 0
}

// maxRetryAfter is as long as a service is taken at its word.
const maxRetryAfter = time.Hour

// retryAfter reads a Retry-After header: seconds, or a date. 0 is none.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(date.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// The pauses between attempts: twice as long each time, up to a limit, and
// then shortened by up to half.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 15 * time.Second
)

// pause is how long to wait after the n-th failure in a row, counted from 0. A
// service that asks to be left alone is left alone for at least that long.
func (c *Client) pause(n int, retryAfter time.Duration) time.Duration {
	full := min(firstPause<<min(n, 10), maxPause)
	spread := time.Duration(c.cfg.Jitter() * float64(full/2))
	if retryAfter > 0 {
		return retryAfter + spread
	}
	return full/2 + spread
}

// patiently makes attempts until one is answered, patience runs out, or ctx
// ends. The error is the last attempt's.
func (c *Client) patiently(ctx context.Context, attempt func(context.Context) error) error {
	end := c.cfg.Clock().Add(c.cfg.Patience)
	for n := 0; ; n++ {
		err := attempt(ctx)
		var unavailable *UnavailableError
		if !errors.As(err, &unavailable) {
			return err
		}
		pause := c.pause(n, unavailable.RetryAfter)
		if c.cfg.Clock().Add(pause).After(end) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return &UnavailableError{RetryAfter: unavailable.RetryAfter, Err: fmt.Errorf("%w, after: %w", ctx.Err(), unavailable.Err)}
		}
	}
}
