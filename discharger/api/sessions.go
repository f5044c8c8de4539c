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

// SessionInfo is a live session, as its homeserver or its user sees it. A user
// sees neither policy nor labels nor epochs, and of the session that asks not
// when, from where and by which client it was used last: that would show the
// holder of a copied token when its owner refreshes.
type SessionInfo struct {
	ID          caveat.SessionID  `json:"id"`
	Current     bool              `json:"current,omitempty"` // to a user: the session that asks
	Device      string            `json:"device"`
	Mode        string            `json:"mode"` // open, rotate or held
	Policy      string            `json:"policy,omitempty"`
	Created     time.Time         `json:"created"`            // first discharge
	LastUsed    time.Time         `json:"last_used,omitzero"` // in modes open and held up to an hour older than the truth
	FirstIP     netip.Addr        `json:"first_ip"`           // "" when unknown
	LastIP      netip.Addr        `json:"last_ip,omitzero"`
	FirstClient string            `json:"first_client"` // program and platform, for instance "Firefox on Linux"
	LastClient  string            `json:"last_client,omitempty"`
	Epoch       uint64            `json:"epoch,omitempty"` // mode rotate only
	Labels      map[string]string `json:"labels,omitempty"`
}

// SessionsResponse is the body of PathUserSessions, the most recently used
// session first, and of PathOwnSessions, the newest session first.
type SessionsResponse struct {
	Sessions []SessionInfo `json:"sessions"`
}

// EndedSession is a session that ended and is remembered.
type EndedSession struct {
	ID     caveat.SessionID `json:"id"`
	Device string           `json:"device"` // "" if it had none, or it is not known
	Kind   string           `json:"kind"`   // KindHard or KindSoft
	Reason string           `json:"reason"` // one of the Revoked constants, or a word that came later
	At     time.Time        `json:"at"`
}

// EndedResponse is the body of PathUserSessions with the parameter ended, the
// latest end first.
type EndedResponse struct {
	Ended []EndedSession `json:"ended"`
}

// Kinds of ends.
const (
	KindHard = "hard" // the client discards its encryption keys
	KindSoft = "soft" // the client logs in again and keeps them
)

// Mark is the body of PathMarks: until when sessions without a record are
// revoked, by the store's clock. A mark after Now was made by a clock that was
// wrong, and keeps logins undecided until then.
type Mark struct {
	User       time.Time `json:"user,omitzero"`       // of the user, if one was asked for
	Device     time.Time `json:"device,omitzero"`     // the latest of the user's devices
	Homeserver time.Time `json:"homeserver,omitzero"` // of the homeserver
	Now        time.Time `json:"now"`                 // the store's time
}

// Lifted is the body of an answer to DELETE on PathMarks.
type Lifted struct {
	Lifted int `json:"lifted"` // marks that were in the future
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

// EndedSessions lists the sessions of a user that ended and are remembered.
func (c *Client) EndedSessions(ctx context.Context, user string) ([]EndedSession, error) {
	var body EndedResponse
	if err := c.order(ctx, http.MethodGet, fill(PathUserSessions, user)+"?"+ParamEnded+"=true", &body); err != nil {
		return nil, fmt.Errorf("list ended sessions: %w", err)
	}
	return body.Ended, nil
}

// Marks returns the revocation marks of a user and of the homeserver; of the
// homeserver alone if user is empty.
func (c *Client) Marks(ctx context.Context, user string) (Mark, error) {
	var body Mark
	if err := c.order(ctx, http.MethodGet, marksPath(user), &body); err != nil {
		return Mark{}, fmt.Errorf("read marks: %w", err)
	}
	return body, nil
}

// LiftMarks sets marks that are in the future to the store's time, all of the
// user's devices included, and
// returns how many there were. What they revoked stays revoked.
func (c *Client) LiftMarks(ctx context.Context, user string) (int, error) {
	var body Lifted
	if err := c.order(ctx, http.MethodDelete, marksPath(user), &body); err != nil {
		return 0, fmt.Errorf("lift marks: %w", err)
	}
	return body.Lifted, nil
}

func marksPath(user string) string {
	if user == "" {
		return PathMarks
	}
	return PathMarks + "?" + url.Values{ParamUser: {user}}.Encode()
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

// Ready returns nil if the service can decide now: it is not draining, and its
// store takes writes. The service tries a write at most once a second.
func (c *Client) Ready(ctx context.Context) error {
	if err := c.order(ctx, http.MethodGet, PathServiceReady, &struct{}{}); err != nil {
		return fmt.Errorf("ask whether the service is ready: %w", err)
	}
	return nil
}

func (c *Client) order(ctx context.Context, method, path string, out any) error {
	return c.patiently(ctx, func(ctx context.Context) error { return c.do(ctx, method, path, nil, out) })
}
