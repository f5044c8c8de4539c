package secevent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A verdict is the meaning of an answer.
type verdict uint8

const (
	undecided verdict = iota // the same token is sent again
	accepted                 // the receiver has the event
	rejected                 // the receiver will never accept it
)

// answer is the result of one POST.
type answer struct {
	verdict    verdict
	code       string        // of a rejection, RFC 8935
	err        error         // of an undecided answer
	retryAfter time.Duration // of an undecided answer: no retry before
}

const (
	// maxReply bounds the part of a reply that is read, in bytes.
	maxReply = 16 << 10
	// maxRetryAfter bounds the pause that a receiver may demand.
	maxRetryAfter = time.Hour
)

// push sends a token once.
func (w *worker) push(ctx context.Context, token string) answer {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.to.URL, strings.NewReader(token))
	if err != nil {
		return answer{err: loggable(err)}
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "discharger")
	if len(w.to.Authorization) > 0 {
		req.Header.Set("Authorization", string(w.to.Authorization))
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return answer{err: loggable(err)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	switch resp.StatusCode {
	case http.StatusAccepted, http.StatusOK:
		return answer{verdict: accepted} // even if the body was cut short
	case http.StatusBadRequest:
		if code := rejection(body); err == nil && code != "" {
			return answer{verdict: rejected, code: code}
		}
	}
	return answer{
		err:        fmt.Errorf("receiver answered %d", resp.StatusCode),
		retryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}

var errAnswer = errors.New("malformed answer")

// loggable returns the part of an error that can be logged. The URL may contain a
// secret, and other errors quote the receiver, which may quote the token.
func loggable(err error) error {
	var (
		op   *net.OpError
		cert *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.As(err, &op):
		return op
	case errors.As(err, &cert):
		return cert
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return errAnswer
}

// rejection returns the code with which a receiver rejects a token (RFC 8935,
// section 2.4), or "". The codes that concern our authentication are none: the
// token itself may be good.
func rejection(body []byte) string {
	var r struct {
		Err string `json:"err"`
	}
	if json.Unmarshal(body, &r) != nil {
		return ""
	}
	switch {
	case r.Err == "authentication_failed", r.Err == "access_denied", r.Err == "invalid_key":
		return ""
	case len(r.Err) > 64, strings.ContainsFunc(r.Err, notInCode):
		return "other"
	}
	return r.Err
}

// notInCode reports whether no registered code has a character. Other codes are
// not logged: a receiver could quote the token in one.
func notInCode(c rune) bool { return (c < 'a' || c > 'z') && c != '_' }

// retryAfter parses the header, a number of seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
