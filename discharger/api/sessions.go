package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// SessionInfo is a live session, as its homeserver or its user sees it. To a user,
// policy and labels are not told.
type SessionInfo struct {
	ID          caveat.SessionID  `json:"id"`
	Current     bool              `json:"current,omitempty"` // to a user: the session that asks
	Device      string            `json:"device"`
	Mode        string            `json:"mode"` // open, rotate or held
	Policy      string            `json:"policy,omitempty"`
	Created     time.Time         `json:"created"`   // first discharge
	LastUsed    time.Time         `json:"last_used"` // in modes open and held up to an hour older than the truth
	FirstIP     netip.Addr        `json:"first_ip"`  // "" when unknown
	LastIP      netip.Addr        `json:"last_ip"`
	FirstClient string            `json:"first_client"` // User-Agent, the beginning of it
	LastClient  string            `json:"last_client"`
	Epoch       uint64            `json:"epoch,omitempty"` // mode rotate only
	Labels      map[string]string `json:"labels,omitempty"`
}

// SessionsResponse is the body of PathUserSessions and PathOwnSessions, the most
// recently used session first.
type SessionsResponse struct {
	Sessions []SessionInfo `json:"sessions"`
}

// Seen says that a homeserver saw a discharge of this epoch in use, so that
// the refresh token that came with it has arrived.
type Seen struct {
	User    string           `json:"user"`
	Session caveat.SessionID `json:"session"`
	Epoch   uint64           `json:"epoch"`
}

// SeenRequest is the JSON body of PathSeen. Reports about sessions or epochs
// that are gone are ignored. It is not all or nothing, but may be repeated.
type SeenRequest struct {
	Seen []Seen `json:"seen"` // up to MaxSeen
}

// MaxSeen is the greatest number of reports in a SeenRequest.
const MaxSeen = 1000

// fill puts a path's segments in place of its braces, in order.
func fill(path string, segments ...string) string {
	for _, s := range segments {
		before, rest, _ := strings.Cut(path, "{")
		_, after, _ := strings.Cut(rest, "}")
		path = before + url.PathEscape(s) + after
	}
	return path
}

// Sessions lists the live sessions of a user. Like all methods for
// homeservers, it needs an API key and reaches that homeserver's sessions only.
func (c *Client) Sessions(ctx context.Context, user string) ([]SessionInfo, error) {
	var body SessionsResponse
	if err := c.order(ctx, http.MethodGet, fill(PathUserSessions, user), &body); err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	return body.Sessions, nil
}

// RevokeSession ends one session, activated or not. Revoking a session that is
// gone is no error, here and below.
func (c *Client) RevokeSession(ctx context.Context, user string, id caveat.SessionID) error {
	return c.revoke(ctx, fill(PathUserSession, user, id.String()), caveat.SessionID{})
}

// RevokeDevice ends the activated sessions of a user's device, but for one
// unless except is zero.
func (c *Client) RevokeDevice(ctx context.Context, user, device string, except caveat.SessionID) error {
	return c.revoke(ctx, fill(PathUserDevice, user, device), except)
}

// RevokeUser ends all sessions of a user, but for one unless except is zero.
func (c *Client) RevokeUser(ctx context.Context, user string, except caveat.SessionID) error {
	return c.revoke(ctx, fill(PathUserSessions, user), except)
}

// RevokeAll ends all sessions of the homeserver.
func (c *Client) RevokeAll(ctx context.Context) error {
	return c.revoke(ctx, PathSessions, caveat.SessionID{})
}

// Seen reports what was seen in use, up to [MaxSeen] at a time.
func (c *Client) Seen(ctx context.Context, seen []Seen) error {
	body, err := json.Marshal(SeenRequest{Seen: seen})
	if err == nil {
		err = c.patiently(ctx, func(ctx context.Context) error {
			return c.send(ctx, http.MethodPost, PathSeen, ContentType, string(body), &struct{}{})
		})
	}
	if err != nil {
		return fmt.Errorf("report what was seen: %w", err)
	}
	return nil
}

func (c *Client) revoke(ctx context.Context, path string, except caveat.SessionID) error {
	if except != (caveat.SessionID{}) {
		path += "?" + url.Values{ParamExcept: {except.String()}}.Encode()
	}
	if err := c.order(ctx, http.MethodDelete, path, &struct{}{}); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

func (c *Client) order(ctx context.Context, method, path string, out any) error {
	return c.patiently(ctx, func(ctx context.Context) error { return c.do(ctx, method, path, nil, out) })
}
