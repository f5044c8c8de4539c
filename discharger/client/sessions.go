package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/discharger/discharger/discharger/wire"
)

// Sessions lists the live sessions of a user, the most recently used first. Like
// all methods for homeservers it needs an API key and reaches the sessions of that
// homeserver only. Attempts and errors are as for [Client.Discharge].
func (c *Client) Sessions(ctx context.Context, user string) ([]wire.SessionInfo, error) {
	var body wire.SessionsResponse
	if err := c.call(ctx, http.MethodGet, fill(wire.PathUserSessions, user), &body); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return body.Sessions, nil
}

// EndedSessions lists the sessions of a user that have a tombstone, the latest end
// first.
func (c *Client) EndedSessions(ctx context.Context, user string) ([]wire.EndedSession, error) {
	var body wire.EndedResponse
	if err := c.call(ctx, http.MethodGet, fill(wire.PathUserSessions, user)+"?"+wire.ParamEnded+"=true", &body); err != nil {
		return nil, fmt.Errorf("list ended sessions: %w", err)
	}
	return body.Ended, nil
}

// Marks returns the revocation marks of a user and of the homeserver; of the
// homeserver alone if user is empty.
func (c *Client) Marks(ctx context.Context, user string) (wire.Mark, error) {
	var body wire.Mark
	if err := c.call(ctx, http.MethodGet, marksPath(user), &body); err != nil {
		return wire.Mark{}, fmt.Errorf("read marks: %w", err)
	}
	return body, nil
}

// LiftMarks sets marks in the future to the time of the store, those of the user's
// devices included, and returns their number. Revoked sessions stay revoked.
func (c *Client) LiftMarks(ctx context.Context, user string) (int, error) {
	var body wire.Lifted
	if err := c.call(ctx, http.MethodDelete, marksPath(user), &body); err != nil {
		return 0, fmt.Errorf("lift marks: %w", err)
	}
	return body.Lifted, nil
}

func marksPath(user string) string {
	if user == "" {
		return wire.PathMarks
	}
	return wire.PathMarks + "?" + url.Values{wire.ParamUser: {user}}.Encode()
}

// Seen reports epochs whose discharges are in use, up to [wire.MaxSeen] at a time.
func (c *Client) Seen(ctx context.Context, seen []wire.Seen) error {
	body, err := json.Marshal(wire.SeenRequest{Seen: seen})
	if err == nil {
		err = c.callJSON(ctx, wire.PathSeen, body, &struct{}{})
	}
	if err != nil {
		return fmt.Errorf("report epochs in use: %w", err)
	}
	return nil
}

// Ready returns nil if the service can decide now: it is not draining, and its
// store accepts writes. The service tests a write at most once a second.
func (c *Client) Ready(ctx context.Context) error {
	if err := c.call(ctx, http.MethodGet, wire.PathServiceReady, &struct{}{}); err != nil {
		return fmt.Errorf("check readiness of the service: %w", err)
	}
	return nil
}

// fill replaces the segments in braces of a path, in order.
func fill(path string, segments ...string) string {
	for _, s := range segments {
		before, rest, _ := strings.Cut(path, "{")
		_, after, _ := strings.Cut(rest, "}")
		path = before + url.PathEscape(s) + after
	}
	return path
}
