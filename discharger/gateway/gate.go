package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/reply"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// matchRoute parses the target of a request and sets its route. It refuses requests
// that must not be forwarded with any token.
func (x *exchange) matchRoute(r *http.Request) *reply.Refusal {
	x.path, _, _ = strings.Cut(r.RequestURI, "?")
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
	default: // the response to TRACE would echo the homeserver's token
		return reply.Unrecognized(http.StatusMethodNotAllowed)
	}
	target, err := matrix.ParseTarget(r.RequestURI)
	if err != nil {
		return reply.Unrecognized(http.StatusBadRequest)
	}
	x.path = target.Path
	x.match = target.Match(r.Method)
	x.route = x.match.Route.Effect
	if x.match.Refused != 0 {
		return reply.Unrecognized(x.match.Refused)
	}
	return nil
}

// checkBody checks the content type of a request where legacy tokens are refused.
// Homeservers also look for tokens in forms, and differ in how they read the header. So
// exactly one well-formed Content-Type (RFC 9110) is accepted, and a form contains no
// token.
func (g *Gateway) checkBody(r *http.Request, x *exchange) *reply.Refusal {
	if r.ContentLength == 0 || !g.live().Legacy.restricts() {
		return nil
	}
	mediaType, ok := matrix.ContentType(r.Header["Content-Type"])
	if !ok {
		return reply.BadRequest(matrix.CodeNotJSON, "The content type is malformed.")
	}
	body := x.match.Route.Body
	if !body.TakesType(mediaType) {
		return &reply.Refusal{
			Status: http.StatusUnsupportedMediaType, Code: matrix.CodeNotJSON, Message: "This content type is not accepted here.",
			Outcome: reply.OutcomeMalformed,
		}
	}
	c, err := token.FindCredential(r)
	switch {
	case mediaType != matrix.TypeForm && mediaType != matrix.TypeMultipart:
		return nil
	case body == matrix.BodyAny && err == nil && (c.Text != "" || r.Header[token.HeaderAuthorization] != nil):
		return nil // a homeserver refuses a request with a second token in its body
	case mediaType == matrix.TypeMultipart || x.match.Listed() && body == matrix.BodyAny:
		return reply.MissingToken("A body of this content type needs an access token in the Authorization header.")
	}
	data, f := g.readRequest(r)
	if f != nil {
		return f
	}
	if _, tokens := token.CutQuery(string(data)); len(tokens) > 0 {
		return reply.MissingToken("An access token does not belong into a form.")
	}
	return nil
}

// checkCondition checks a condition that a holder added, for the exchange of ctx.
func checkCondition(ctx context.Context, c homeserver.Caveat) error {
	name, arg := rawmacaroon.CutCondition(c.Condition)
	x, met := exchangeOf(ctx), false
	switch {
	case x == nil:
	case c.Condition == token.CondReadOnly:
		met = x.match.Allows(matrix.Limited | matrix.ReadOnly)
	case name == token.CondRoom && token.ValidRoom(arg):
		met = x.enterRoom(arg)
	default:
		return homeserver.ErrUnknownCaveat
	}
	if !met {
		return homeserver.ErrNotMet
	}
	return nil
}

// enterRoom reports whether a token narrowed to a room is accepted for the request, and
// records the room for [Gateway.confine].
func (x *exchange) enterRoom(id string) bool {
	if !x.match.Allows(matrix.Limited|matrix.InRoom) || x.match.Has("room") && x.match.ID("room") != id {
		return false
	}
	if x.match.Route.Events {
		x.room = id
	}
	return true
}

// confine withholds a response to a token narrowed to a room if an event in it is of
// another room or names none: a homeserver may look an event up by its id alone.
func (g *Gateway) confine(resp *http.Response, x *exchange) error {
	refused := refusalError{reply.Forbidden("This access token was narrowed to a room, and the answer is about more than that.")}
	data, err := jsonbody.ReadResponseWith(resp, func(r io.Reader) ([]byte, error) { return g.bodies.Read(r, &x.body) })
	switch {
	case errors.Is(err, jsonbody.ErrNoRoom):
		return refusalError{tooMany(x.route)}
	case err != nil:
		return refused
	}
	var answer map[string]any
	if g.bodies.InTurn(data, func(data []byte) { err = json.Unmarshal(data, &answer) }); err != nil {
		return refused
	}
	found := x.match.Has("event") && answer["event_id"] != nil
	if found && answer[memberRoom] == nil {
		return refused
	}
	for _, name := range [...]string{"event", "events_before", "events_after", "state", "chunk"} {
		if answer[name] == nil {
			continue
		}
		events, list := answer[name].([]any)
		if !list {
			events = []any{answer[name]}
		}
		for _, e := range events {
			if event, ok := e.(map[string]any); !ok || event[memberRoom] == nil {
				return refused
			}
		}
		found = true
	}
	if !found || !inRoom(answer, x.room) {
		return refused
	}
	return nil
}

const memberRoom = "room_id"

// inRoom reports whether no event in a value names another room. It skips event
// content, which its sender controls.
func inRoom(v any, room string) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			switch name {
			case memberRoom:
				if member != room {
					return false
				}
			case "content", "prev_content":
			default:
				if !inRoom(member, room) {
					return false
				}
			}
		}
	case []any:
		for _, e := range v {
			if !inRoom(e, room) {
				return false
			}
		}
	}
	return true
}
