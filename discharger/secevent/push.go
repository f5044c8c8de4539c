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

// verdict is what an answer means.
type verdict uint8

const (
	again     verdict = iota // none: the same is sent again
	delivered                // the receiver has it
	refused                  // it never will
)

// answer is what came of one POST.
type answer struct {
	verdict   verdict
	code      string        // with refused: what the receiver calls it
	why       error         // with again
	notBefore time.Duration // with again: how long the receiver wants to be left alone
}

const (
	// maxReply bounds what is read of a reply, in bytes.
	maxReply = 16 << 10
	// maxRetryAfter bounds how long a receiver may want to be left alone.
	maxRetryAfter = time.Hour
)

// push sends a token once.
func (c *courier) push(ctx context.Context, token string) answer {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.to.URL, strings.NewReader(token))
	if err != nil {
		return answer{why: tellable(err)}
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "discharger")
	if len(c.to.Authorization) > 0 {
		req.Header.Set("Authorization", string(c.to.Authorization))
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return answer{why: tellable(err)}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	switch resp.StatusCode {
	case http.StatusAccepted, http.StatusOK:
		return answer{verdict: delivered} // whatever became of the rest
	case http.StatusBadRequest:
		if code := refusal(body); err == nil && code != "" {
			return answer{verdict: refused, code: code}
		}
	}
	return answer{
		why:       fmt.Errorf("the receiver answered %d", resp.StatusCode),
		notBefore: retryAfter(resp.Header.Get("Retry-After"), c.cfg.Now()),
	}
}

var errAnswer = errors.New("the answer cannot be read")

// tellable is what of an error can be logged. There may be a secret in the URL,
// and the texts of others repeat what the receiver sent, which may be what it
// was sent.
func tellable(err error) error {
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

// refusal reads why a receiver refuses a token for ever (RFC 8935, section 2.4);
// "" if the body does not say so. That it does not know us, or does not want us,
// or not our key yet, says nothing about the token, and may be mended.
func refusal(body []byte) string {
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

// notInCode reports whether a character is in no registered code. Others are
// not logged, since a receiver could repeat the token in them.
func notInCode(c rune) bool { return (c < 'a' || c > 'z') && c != '_' }

// retryAfter reads the header, which is a number of seconds or a date.
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
