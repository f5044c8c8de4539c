package measure

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/discharger/discharger/cmd/bench/reference"
)

// prepareFosite starts the refresh grant of fosite. Its requests are of the same
// number of sessions as those of the service.
func (r *run) prepareFosite(ctx context.Context) error {
	if r.cfg.Workload != Rotate {
		return fmt.Errorf("only the workload %s is compared with %s", Rotate, reference.Fosite)
	}
	ref, err := startReference(ctx, r.cfg.Self, r.cfg.Procs, reference.Spec{Kind: reference.Fosite})
	if err != nil {
		return err
	}
	s := &subject{name: string(reference.Fosite), target: ref}
	r.subjects = append(r.subjects, s)
	if err := rotates(ctx, ref.hello.Addr); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	share := r.share()
	s.client, err = newClient(ref.hello.Addr, r.cfg.Load.Connections, func(int) (player, error) {
		return &granted{tokens: make([]string, share)}, nil
	})
	return err
}

// rotates makes sure that a refresh token is good for one refresh and no more,
// as ours are.
func rotates(ctx context.Context, addr string) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.expire(time.Now().Add(slow)); err != nil {
		return err
	}
	g := &granted{tokens: make([]string, 1)}
	ask := func() (status int, body []byte, err error) {
		request, _, err := g.next(nil)
		if err != nil {
			return 0, nil, err
		}
		return c.do(request)
	}
	var first string
	for range 3 { // a login and two refreshes
		status, body, err := ask()
		if err != nil {
			return err
		}
		if err := g.answered(status, body); err != nil {
			return err
		}
		first = cmp.Or(first, g.tokens[0])
	}
	g.tokens[0] = first
	status, body, err := ask()
	if err != nil {
		return err
	}
	return expect(http.StatusBadRequest, status, body)
}

// granted refreshes sessions of OAuth 2.0, one after the other. A session that
// has no refresh token yet begins first.
type granted struct {
	tokens []string // the current one of each session
	at     int
}

func (g *granted) next(b []byte) ([]byte, kind, error) {
	g.at = (g.at + 1) % len(g.tokens)
	token := g.tokens[g.at]
	if token == "" {
		return appendForm(b, "/login", "client_id=bench"), kindActivate, nil
	}
	return appendForm(b, "/token", "grant_type=refresh_token&client_id=bench&refresh_token="+token), kindDischarge, nil
}

// appendForm appends a request with the headers that the service gets, but for
// those that are its own.
func appendForm(b []byte, path, body string) []byte {
	b = append(append(append(b, "POST "...), path...), " HTTP/1.1\r\nHost: bench\r\nUser-Agent: "+userAgent+
		"\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: "...)
	return append(append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n\r\n"...), body...)
}

func (g *granted) answered(status int, body []byte) error {
	if err := expect(http.StatusOK, status, body); err != nil {
		return err
	}
	return replace(&g.tokens[g.at], body, `"refresh_token":"`)
}

// replace puts the refresh token of an answer, which begins after a text, in the
// place of the one that was sent. It has to be another.
func replace(token *string, body []byte, after string) error {
	_, rest, ok := bytes.Cut(body, []byte(after))
	found, _, ended := bytes.Cut(rest, []byte(`"`))
	if !ok || !ended || len(found) == 0 {
		return errors.New("no refresh token in the answer")
	}
	if string(found) == *token {
		return errors.New("the answer has the refresh token that was sent, not a new one")
	}
	*token = string(found)
	return nil
}
