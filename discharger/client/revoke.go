package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

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
