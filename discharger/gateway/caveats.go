package gateway

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/discharger/discharger/discharger/chain"
	"github.com/discharger/discharger/discharger/homeserver"
)

// Names of the conditions that a holder can add to a token in mode held, beside
// time-before and client-ip; see the package comment.
const (
	CondReadOnly = "read-only" // no argument
	CondRoom     = "room"      // a room id
)

// checkCondition decides about a condition of a holder's for the request that
// ctx belongs to.
func checkCondition(ctx context.Context, condition string) error {
	name, arg := chain.CutCondition(condition)
	x := exchangeOf(ctx)
	switch {
	case x == nil:
		return homeserver.ErrNotMet
	case condition == CondReadOnly:
		if !readOnly(x.method, x.path) {
			return homeserver.ErrNotMet
		}
	case name == CondRoom && validRoom(arg):
		if !inRoom(x.method, x.path, arg) {
			return homeserver.ErrNotMet
		}
	default:
		return homeserver.ErrUnknownCaveat
	}
	return nil
}

func validRoom(id string) bool {
	return len(id) > 1 && len(id) <= 255 && id[0] == '!'
}

// segments splits a path below /_matrix/client and a version, and decodes each
// segment once. Anything that could be read in two ways is not split at all.
func segments(path string) []string {
	rest, ok := strings.CutPrefix(path, clientPrefix)
	if !ok || !clean(path) {
		return nil
	}
	_, rest, ok = cutVersion(rest)
	if !ok {
		return nil
	}
	all := strings.Split(rest, "/")
	for i, s := range all {
		decoded, err := url.PathUnescape(s)
		if err != nil || decoded == "" {
			return nil
		}
		all[i] = decoded
	}
	return all
}

// readable are the first segments of what a token that is read-only may read.
// Not among them is /sync: it takes messages away from the device.
var readable = []string{
	"rooms", "joined_rooms", "publicRooms", "profile", "directory", "capabilities", "notifications", "presence", "voip", "media",
}

// readOnly reports whether a request only reads, and what may be read.
func readOnly(method, path string) bool {
	if method != http.MethodGet && method != http.MethodHead {
		return false
	}
	if neutral(path) || mediaDownload(path) {
		return true
	}
	s := segments(path)
	return len(s) > 0 && slices.Contains(readable, s[0])
}

// inRoom reports whether a request is about one room and no other.
func inRoom(method, path, room string) bool {
	reading := method == http.MethodGet || method == http.MethodHead
	if reading && (neutral(path) || mediaDownload(path)) {
		return true
	}
	s := segments(path)
	return len(s) > 2 && s[0] == "rooms" && s[1] == room && s[2] != "upgrade"
}

// neutral are paths that say nothing but who one is and what there is.
func neutral(path string) bool {
	if path == clientPrefix+"versions" {
		return true
	}
	return slices.Equal(segments(path), []string{"account", "whoami"})
}

// mediaDownload are paths that media are read from.
func mediaDownload(path string) bool {
	if s := segments(path); len(s) > 1 && s[0] == "media" && (s[1] == "download" || s[1] == "thumbnail") {
		return true
	}
	for _, prefix := range []string{"/_matrix/media/v3/", "/_matrix/media/r0/"} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && clean(path) {
			return strings.HasPrefix(rest, "download/") || strings.HasPrefix(rest, "thumbnail/")
		}
	}
	return false
}

// accountPath reports whether a request is about the account or its devices,
// or gets another credential. No narrowed token may do that, however it was
// narrowed: what it could get there would not be narrow.
func accountPath(path string) bool {
	if path == clientPrefix+"versions" || strings.HasPrefix(path, "/_matrix/media/") && clean(path) {
		return false
	}
	s := segments(path)
	if len(s) == 0 {
		return true // an administrator's, or spelled strangely
	}
	switch s[0] {
	case "account":
		return len(s) != 2 || s[1] != "whoami"
	case "logout", "login", "register", "refresh", "devices", "delete_devices", "dehydrated_device", "auth", "auth_metadata",
		"rendezvous", "admin":
		return true
	case "keys":
		return len(s) < 2 || s[1] == "device_signing" || s[1] == "upload" || s[1] == "signatures"
	case "room_keys", "pushers":
		return true
	case "user":
		return len(s) > 2 && s[2] == "openid"
	}
	return strings.HasPrefix(s[0], "org.matrix.") || strings.HasPrefix(s[0], "io.element.") || strings.HasPrefix(s[0], "uk.")
}
