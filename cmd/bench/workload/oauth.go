package workload

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/discharger/discharger/cmd/bench/load"
)

// CheckRotation returns an error unless the server accepts a refresh token for one
// refresh only.
func CheckRotation(ctx context.Context, addr string) error {
	c, err := load.Dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Expire(time.Now().Add(load.Timeout)); err != nil {
		return err
	}
	g := NewOAuth(1)
	send := func() (status int, body []byte, err error) {
		request, _, err := g.Next(nil)
		if err != nil {
			return 0, nil, err
		}
		return c.Do(request)
	}
	var first string
	for range 3 { // a login and two refreshes
		status, body, err := send()
		if err != nil {
			return err
		}
		if err := g.Answered(status, body); err != nil {
			return err
		}
		first = cmp.Or(first, g.tokens[0])
	}
	g.tokens[0] = first
	status, body, err := send()
	if err != nil {
		return err
	}
	return Expect(http.StatusBadRequest, status, body)
}

// OAuth is a player that refreshes sessions of OAuth 2.0 in turn. A session without
// a refresh token is begun first.
type OAuth struct {
	tokens []string // the current refresh token of each session
	at     int
}

// NewOAuth returns a player of a number of sessions.
func NewOAuth(sessions int) *OAuth { return &OAuth{tokens: make([]string, sessions)} }

// Next implements [load.Player].
func (g *OAuth) Next(b []byte) ([]byte, load.Kind, error) {
	g.at = (g.at + 1) % len(g.tokens)
	token := g.tokens[g.at]
	if token == "" {
		return appendForm(b, "/login", "client_id=bench"), load.Activate, nil
	}
	return appendForm(b, "/token", "grant_type=refresh_token&client_id=bench&refresh_token="+token), load.Discharge, nil
}

// appendForm appends a request with the headers of the service's own, without those
// that only the service reads.
func appendForm(b []byte, path, body string) []byte {
	b = append(append(append(b, "POST "...), path...), " HTTP/1.1\r\nHost: bench\r\nUser-Agent: "+UserAgent+
		"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: "...)
	return append(append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n\r\n"...), body...)
}

// Answered implements [load.Player].
func (g *OAuth) Answered(status int, body []byte) error {
	if err := Expect(http.StatusOK, status, body); err != nil {
		return err
	}
	return advanceToken(&g.tokens[g.at], body, `"refresh_token":"`)
}

// advanceToken replaces a refresh token by that of an answer, which follows a
// text. It returns an error if the two are equal.
func advanceToken(token *string, body []byte, after string) error {
	_, rest, ok := bytes.Cut(body, []byte(after))
	found, _, ended := bytes.Cut(rest, []byte(`"`))
	if !ok || !ended || len(found) == 0 {
		return errors.New("no refresh token in the answer")
	}
	if string(found) == *token {
		return errors.New("the refresh token in the answer is not a new one")
	}
	*token = string(found)
	return nil
}
