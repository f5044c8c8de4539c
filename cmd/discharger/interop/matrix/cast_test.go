package matrix

import (
	"fmt"
	"maps"
	"net/http"
	"testing"
)

// side is one of two compared homeservers of one kind. They receive the same
// requests, one of them through a gateway.
type side struct {
	*site
	cast *cast
	// aliases map values that differ between the sides to common names.
	aliases map[string]string
}

// cast holds the users of a comparison, with their sessions and rooms. After a request
// that may have damaged them, a new cast replaces them.
type cast struct {
	user, other, admin *device
	second             *device // another session of the user
	rotating           *device // and one with a refresh token; nil: the site has none
	values             map[string]string
	registrations      int // of users that a request registers
}

// newCast creates users, sessions and rooms, with the same names on both sides. The
// number n is part of the names.
func (s *side) newCast(t *testing.T, n int) {
	t.Helper()
	c := &cast{values: maps.Clone(routeValues)}
	s.cast = c
	u := s.register(t, fmt.Sprintf("alice%d", n))
	c.user = u.login(t, body{"device_id": fmt.Sprintf("FIRST%d", n)})
	c.second = u.login(t, body{"device_id": fmt.Sprintf("SECOND%d", n)})
	c.other = s.register(t, fmt.Sprintf("bob%d", n)).login(t, body{"device_id": fmt.Sprintf("OTHER%d", n)})
	c.admin = s.registerAdmin(t, fmt.Sprintf("root%d", n))
	if d := u.login(t, body{"device_id": fmt.Sprintf("ROTATING%d", n), "refresh_token": true}); d.refresh != "" {
		c.rotating = d
	}
	alias := fmt.Sprintf("den%d", n)
	a := c.user.call(t, "POST", "/createRoom", body{"preset": "public_chat", "room_alias_name": alias, "topic": "a topic"}).ok(t)
	room := a.body.text("room_id")
	c.other.call(t, "POST", "/join/"+room, body{}).ok(t)
	event := c.user.send(t, room, "first")
	media := s.call(t, "POST", "/_matrix/media/v3/upload", c.user.token, body{"a": "file"}).ok(t).body.text("content_uri")
	filter := c.user.call(t, "POST", "/user/"+u.id()+"/filter", body{"room": body{"timeline": body{"limit": 1}}}).ok(t)
	id := func(name, value string) {
		c.values[name] = value
		s.aliases[value] = fmt.Sprintf("<%s of cast %d>", name, n)
	}
	id("room_id", room)
	id("event_id", event)
	id("media_id", media[len("mxc://localhost/"):])
	c.values["filter_id"] = filter.body.text("filter_id")
	s.aliases[c.admin.id] = fmt.Sprintf("<device of the administrator %d>", n)
	for name, value := range map[string]string{
		"user_id": u.id(), "target_user_id": u.id(), "device_id": c.user.id, "room_alias": "#" + alias + ":localhost",
		"room_identifier": room, "parent_id": event, "thread_root_id": event,
	} {
		c.values[name] = value
	}
}

// routeValues are values of named groups that do not depend on the cast.
var routeValues = map[string]string{
	"account_data_type": "org.example.data", "address": "alice@example.org", "appservice_id": "none", "delay_id": "none",
	"delete_id": "none", "destination": "example.org", "event_type": "m.room.topic", "external_id": "none", "file_name": "file.json",
	"medium": "email", "message_type": "m.room_key", "network_id": "none", "path": "pushrules/global/content/.m.rule.contains_user_name",
	"protocol": "none", "provider": "none", "purge_id": "none", "receipt_type": "m.read", "redact_id": "none", "relation_type": "m.thread",
	"report_id": "1", "server_name": "localhost", "session_id": "none", "stagetype": "m.login.dummy", "state_key": "", "tag": "u.work",
	"token": "none", "txn_id": "txn", "version": "1",
}

// intact reports whether every session of the cast is alive.
func (s *side) intact(t *testing.T) bool {
	t.Helper()
	for _, d := range []*device{s.cast.user, s.cast.second, s.cast.other, s.cast.admin} {
		if d.asIs(t).status != http.StatusOK {
			return false
		}
	}
	return true
}
