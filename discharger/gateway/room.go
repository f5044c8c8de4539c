package gateway

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/discharger/discharger/discharger/gateway/matrix"
)

// enterRoom reports whether a token narrowed to a room may be used for the request,
// and notes the room for [Gateway.confine].
func (x *exchange) enterRoom(id string) bool {
	if !x.match.Allows(matrix.Limited | matrix.InRoom) {
		return false
	}
	if x.match.Has("room") && x.match.ID("room") != id {
		return false
	}
	if x.match.Route.Events {
		x.room = id
	}
	return true
}

// confine withholds an answer to a token narrowed to a room if it holds events
// of another one: a homeserver may look an event up by its id alone. Every event has
// to name its room.
func (g *Gateway) confine(resp *http.Response, x *exchange) error {
	refused := failed{forbidden("This access token was narrowed to a room, and the answer is about more than that.")}
	data, err := readResponseBy(resp, func(r io.Reader) ([]byte, error) { return g.bodies.read(r, &x.body) })
	switch {
	case errors.Is(err, errNoRoom):
		return failed{tooMany(x.route)}
	case err != nil:
		return refused
	}
	var answer map[string]any
	if g.bodies.parse(data, func(data []byte) { err = json.Unmarshal(data, &answer) }); err != nil {
		return refused
	}
	found := x.match.Has("event") && answer["event_id"] != nil
	if found && answer[memberRoom] == nil {
		return refused
	}
	for _, name := range [...]string{"event", "events_before", "events_after", "state", "chunk"} {
		switch v := answer[name].(type) {
		case nil:
			continue
		case map[string]any:
			if v[memberRoom] == nil {
				return refused
			}
		case []any:
			for _, e := range v {
				if event, ok := e.(map[string]any); !ok || event[memberRoom] == nil {
					return refused
				}
			}
		default:
			return refused
		}
		found = true
	}
	if !found || !inRoom(answer, x.room) {
		return refused
	}
	return nil
}

const memberRoom = "room_id"

// inRoom reports whether no event in a value names another room. The content of an
// event is its sender's, and may name any.
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
