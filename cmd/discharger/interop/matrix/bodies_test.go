package matrix

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
)

// sample is a valid body for some routes. Other routes get an empty object.
type sample struct {
	method string
	path   *regexp.Regexp
	body   func(c *cast) body
	breaks bool // a request that succeeds damages the cast
}

// samples are matched in order.
var samples = []sample{
	on("POST", `/login$`, false, func(c *cast) body {
		return body{"type": "m.login.password", "identifier": body{"type": "m.id.user", "user": c.user.user.name},
			"password": c.user.user.password, "device_id": "NEW"}
	}),
	on("POST", `/_matrix/client/.*/register$`, false, func(c *cast) body {
		c.registrations++
		return body{
			"username": fmt.Sprintf("new%d-%s", c.registrations, c.user.user.name), "password": "a password", "device_id": "NEW",
			"auth": body{"type": "m.login.dummy"},
		}
	}),
	on("POST", `/(token)?refresh$`, false, func(c *cast) body {
		if c.rotating == nil {
			return body{"refresh_token": "none"}
		}
		return body{"refresh_token": c.rotating.refresh}
	}),
	on("POST", `/logout(/all)?$`, true, nothing),
	on("POST", `/account/password$`, true, func(c *cast) body {
		return body{"new_password": "another password", "auth": c.user.user.auth("")}
	}),
	on("POST", `/account/deactivate$`, true, authOnly),
	on("POST", `/client/.*/delete_devices$`, true, func(c *cast) body {
		return body{"devices": []string{c.second.id}, "auth": c.user.user.auth("")}
	}),
	on("POST", `/admin/.*/delete_devices$`, true, func(c *cast) body { return body{"devices": []string{c.second.id}} }),
	on("DELETE", `/client/.*/devices/`, true, authOnly),
	on("DELETE", `.`, true, nothing),
	on("PUT", `/client/.*/devices/`, false, func(*cast) body { return body{"display_name": "a device"} }),
	on("PUT", `/admin/.*/devices/`, false, func(*cast) body { return body{"display_name": "a device"} }),
	on("POST", `/createRoom`, false, func(*cast) body { return body{"preset": "private_chat"} }),
	on("PUT", `/createRoom`, false, func(*cast) body { return body{"preset": "private_chat"} }),
	on("", `/rooms/[^/]+/(invite|ban|unban|kick)(/txn)?$`, true, func(c *cast) body { return body{"user_id": c.other.user.id()} }),
	on("", `/rooms/[^/]+/(leave|forget)(/txn)?$`, true, nothing),
	on("POST", `/rooms/[^/]+/upgrade$`, true, func(*cast) body { return body{"new_version": "10"} }),
	on("", `/rooms/[^/]+/send/`, false, func(*cast) body { return body{"msgtype": "m.text", "body": "a message"} }),
	on("PUT", `/rooms/[^/]+/state/`, false, func(*cast) body { return body{"topic": "another topic"} }),
	on("PUT", `/rooms/[^/]+/typing/`, false, func(*cast) body { return body{"typing": true, "timeout": 1000} }),
	on("POST", `/read_markers$`, false, func(c *cast) body { return body{"m.fully_read": c.values["event_id"]} }),
	on("POST", `/report`, false, func(*cast) body { return body{"reason": "a reason", "score": -1} }),
	on("POST", `/search$`, false, func(*cast) body {
		return body{"search_term": "alice", "search_categories": body{"room_events": body{"search_term": "first"}}}
	}),
	on("POST", `/keys/query$`, false, func(c *cast) body { return body{"device_keys": body{c.user.user.id(): []string{}}} }),
	on("POST", `/keys/claim$`, false, func(*cast) body { return body{"one_time_keys": body{}} }),
	on("POST", `/room_keys/version$`, false, func(*cast) body {
		return body{"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": body{"public_key": "none"}}
	}),
	on("PUT", `/profile/.*/displayname$`, false, func(*cast) body { return body{"displayname": "Alice"} }),
	on("PUT", `/profile/.*/avatar_url$`, false, func(*cast) body { return body{"avatar_url": "mxc://localhost/none"} }),
	on("PUT", `/presence/`, false, func(*cast) body { return body{"presence": "online"} }),
	on("PUT", `/pushrules/`, false, func(*cast) body { return body{"actions": []string{"notify"}, "pattern": "word"} }),
	on("PUT", `/directory/room/`, false, func(c *cast) body { return body{"room_id": c.values["room_id"]} }),
	on("PUT", `/directory/list/`, false, func(*cast) body { return body{"visibility": "public"} }),
	on("PUT", `/sendToDevice/`, false, func(*cast) body { return body{"messages": body{}} }),
	on("POST", `/pushers/set$`, false, func(*cast) body {
		return body{"kind": "http", "app_id": "an.app", "pushkey": "a key", "app_display_name": "an app", "device_display_name": "a device",
			"lang": "en", "data": body{"url": "https://push.example.org/_matrix/push/v1/notify"}}
	}),
	on("POST", `/admin/.*/deactivate/|/evacuate|/purgeRoom/`, true, func(*cast) body { return body{"erase": false} }),
	on("POST", `/(reset_password|resetPassword)/`, true, func(*cast) body {
		return body{"new_password": "another password", "password": "another password", "logout_devices": true}
	}),
	on("PUT", `/suspend/`, true, func(*cast) body { return body{"suspend": true} }),
	on("PUT", `/users/[^/]+/admin$`, true, func(*cast) body { return body{"admin": true} }),
	on("PUT", `/users/[^/]+$`, true, func(*cast) body { return body{"displayname": "Alice", "password": "another password"} }),
	on("PUT", `/block$`, true, func(*cast) body { return body{"block": true} }),
	on("POST", `/shadow_ban$|/quarantine|/redact$|/purge_|/media/delete$|/localhost/delete$`, true, func(*cast) body {
		return body{"rooms": []string{}, "purge_up_to_ts": 1}
	}),
	on("POST", `/admin/.*/join/`, false, func(c *cast) body { return body{"user_id": c.other.user.id()} }),
	on("POST", `/admin/.*/devices$`, false, func(*cast) body { return body{"device_id": "THIRD"} }),
	on("POST", `/override_ratelimit$`, false, func(*cast) body { return body{"messages_per_second": 0, "burst_count": 0} }),
	on("POST", `/background_updates/enabled$`, false, func(*cast) body { return body{"enabled": true} }),
	on("POST", `/registration_tokens/new$`, false, func(*cast) body { return body{"length": 8} }),
	on("", `.`, false, nothing),
}

func on(method, pattern string, breaks bool, in func(*cast) body) sample {
	return sample{method, regexp.MustCompile(pattern), in, breaks}
}

func nothing(*cast) body { return body{} }

func authOnly(c *cast) body { return body{"auth": c.user.user.auth("")} }

// sampleOf returns the first matching sample. The last one matches every request.
func sampleOf(method, path string) sample {
	return samples[slices.IndexFunc(samples, func(s sample) bool {
		return (s.method == "" || s.method == method) && s.path.MatchString(path)
	})]
}

// hasBody reports whether requests with a method have a body.
func hasBody(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch:
		return true
	}
	return false
}
