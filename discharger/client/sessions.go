package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// Sessions lists the live sessions of a user, the most recently used first. Like
// all methods for homeservers it needs an API key and reaches the sessions of that
// homeserver only. Attempts and errors are as for [Client.Discharge].
func (c *Client) Sessions(ctx context.Context, user string) ([]wire.SessionInfo, error) {
	body, err := call[wire.SessionsResponse](ctx, c, "list sessions", http.MethodGet, fill(wire.PathUserSessions, user))
	return body.Sessions, err
}

// EndedSessions lists the sessions of a user that have a tombstone, the latest end first.
func (c *Client) EndedSessions(ctx context.Context, user string) ([]wire.EndedSession, error) {
	path := fill(wire.PathUserSessions, user) + "?" + wire.ParamEnded + "=true"
	body, err := call[wire.EndedResponse](ctx, c, "list ended sessions", http.MethodGet, path)
	return body.Ended, err
}

// Marks returns the revocation marks of a user and of the homeserver; of the
// homeserver alone if user is empty.
func (c *Client) Marks(ctx context.Context, user string) (wire.Mark, error) {
	return call[wire.Mark](ctx, c, "read marks", http.MethodGet, marksPath(user))
}

// LiftMarks sets marks in the future to the time of the store, those of the user's
// devices included, and returns their number. Revoked sessions stay revoked.
func (c *Client) LiftMarks(ctx context.Context, user string) (int, error) {
	body, err := call[wire.Lifted](ctx, c, "lift marks", http.MethodDelete, marksPath(user))
	return body.Lifted, err
}

func marksPath(user string) string {
	if user == "" {
		return wire.PathMarks
	}
	return wire.PathMarks + "?" + url.Values{wire.ParamUser: {user}}.Encode()
}

// OwnSessions lists the live sessions of the user that r presents a session of, the
// newest first; Current marks that session. It has the requirements of a discharge
// and leaves a refresh token unused. Attempts and errors are as for [Client.Discharge].
func (c *Client) OwnSessions(ctx context.Context, r Request) ([]wire.SessionInfo, error) {
	var body wire.SessionsResponse
	err := c.present(ctx, "list own sessions", r, func(ctx context.Context, form url.Values) error {
		return c.post(ctx, wire.PathOwnSessions, form, &body)
	})
	if err != nil {
		return nil, err
	}
	return body.Sessions, nil
}

// RevokeOwn ends a session of the user that r presents a session of. It
// succeeds for a session that is over, and for one of another user, which it
// leaves alone. Attempts and errors are as for [Client.Discharge].
func (c *Client) RevokeOwn(ctx context.Context, r Request, id caveat.SessionID) error {
	return c.present(ctx, "revoke own session", r, func(ctx context.Context, form url.Values) error {
		form.Set(wire.ParamSession, id.String())
		return c.post(ctx, wire.PathRevokeOwn, form, &struct{}{})
	})
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
	_, err := call[struct{}](ctx, c, "check readiness of the service", http.MethodGet, wire.PathServiceReady)
	return err
}

// RevokeSession ends one session, activated or not. Like the methods below it
// succeeds for a session that is over already.
func (c *Client) RevokeSession(ctx context.Context, user string, id caveat.SessionID, o wire.RevokeOptions) (wire.Revoked, error) {
	return c.revoke(ctx, fill(wire.PathUserSession, user, id.String()), o)
}

// RevokeDevice ends the sessions of a device of a user, activated or not.
func (c *Client) RevokeDevice(ctx context.Context, user, device string, o wire.RevokeOptions) (wire.Revoked, error) {
	return c.revoke(ctx, fill(wire.PathUserDevice, user, device), o)
}

// RevokeUser ends all sessions of a user, activated or not.
func (c *Client) RevokeUser(ctx context.Context, user string, o wire.RevokeOptions) (wire.Revoked, error) {
	return c.revoke(ctx, fill(wire.PathUserSessions, user), o)
}

// RevokeHomeserver ends all sessions of the homeserver. Only Soft of the options
// is allowed.
func (c *Client) RevokeHomeserver(ctx context.Context, o wire.RevokeOptions) error {
	_, err := c.revoke(ctx, wire.PathSessions, o)
	return err
}

func (c *Client) revoke(ctx context.Context, path string, o wire.RevokeOptions) (wire.Revoked, error) {
	return call[wire.Revoked](ctx, c, "revoke", http.MethodDelete, path+revokeQuery(o))
}

// RevokeBatch makes several revocations, up to [wire.MaxRevoke], and returns one
// result for each. An entry that the service cannot decide now has an error with
// the code [wire.CodeUnavailable] and may be sent again.
func (c *Client) RevokeBatch(ctx context.Context, entries []wire.RevokeEntry) ([]wire.RevokeResult, error) {
	body, err := jsonv2.Marshal(wire.RevokeRequest{Revoke: entries})
	var out wire.RevokeResponse
	if err == nil {
		err = c.callJSON(ctx, wire.PathRevoke, body, &out)
	}
	if err == nil && len(out.Results) != len(entries) {
		err = &UnavailableError{Err: fmt.Errorf("unusable answer: %d results for %d entries", len(out.Results), len(entries))}
	}
	if err != nil {
		return nil, fmt.Errorf("revoke: %w", err)
	}
	return out.Results, nil
}

// revokeQuery returns the options as a query, with its question mark.
func revokeQuery(o wire.RevokeOptions) string {
	q := make(url.Values)
	set := func(name, value string, given bool) {
		if given {
			q.Set(name, value)
		}
	}
	set(wire.ParamKind, wire.KindSoft, o.Soft)
	set(wire.ParamAge, strconv.FormatInt(o.Age.Milliseconds(), 10), o.Age > 0)
	set(wire.ParamExcept, o.Except.String(), o.Except != caveat.SessionID{})
	set(wire.ParamExceptDevice, o.ExceptDevice, o.ExceptDevice != "")
	set(wire.ParamDevices, "true", o.Devices)
	set(wire.ParamEpoch, strconv.FormatUint(o.Epoch, 10), o.Epoch > 0)
	if len(q) == 0 {
		return ""
	}
	return "?" + q.Encode()
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
