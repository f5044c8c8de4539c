package sessions

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// namesake finds names that are like an unknown one. The service compares names byte
// for byte, and has no list of users.
type namesake struct {
	client     *client.Client
	homeserver string // its name; "": it is not known
}

// excepted checks that the excepted session or device exists: with a misspelt name, the
// revocation would end that session too.
func (n *namesake) excepted(ctx context.Context, e *wire.RevokeEntry) error {
	none := caveat.SessionID{}
	if e.ExceptDevice == "" && e.Except == none {
		return nil
	}
	list, err := n.client.Sessions(ctx, e.User)
	if err != nil {
		return err
	}
	if e.Except != none && !slices.ContainsFunc(list, func(s wire.SessionInfo) bool { return s.ID == e.Except }) {
		return fmt.Errorf("nothing was revoked: %s has no session %s to except", command.Quoted(e.User), e.Except)
	}
	if e.ExceptDevice == "" {
		return nil
	}
	if slices.ContainsFunc(list, func(s wire.SessionInfo) bool { return s.Device == e.ExceptDevice }) {
		return nil
	}
	like := likeDevices(list, e.ExceptDevice)
	if like == "" {
		like = command.Quoted(e.User) + " has no sessions with a device"
	}
	return fmt.Errorf("nothing was revoked: no session on device %s to except: %s", command.Quoted(e.ExceptDevice), like)
}

// like returns a hint with names that exist and are like that of a revocation without
// effect, or "". If the name itself is known, only users with other spellings count.
func (n *namesake) like(ctx context.Context, e *wire.RevokeEntry, known bool) (string, error) {
	if e.Device != "" || e.Session != (caveat.SessionID{}) {
		if known {
			return "", nil
		}
		list, err := n.client.Sessions(ctx, e.User)
		if err != nil {
			return "", err
		}
		if e.Device == "" && len(list) > 0 {
			return likeSessions(list), nil
		}
		if like := likeDevices(list, e.Device); like != "" {
			return like, nil
		}
	}
	var users []string
	for _, user := range spellings(e.User, n.homeserver) {
		list, err := n.client.Sessions(ctx, user)
		if err != nil {
			return "", err
		}
		if len(list) > 0 {
			users = append(users, fmt.Sprintf("%s, who has %s", command.Quoted(user), plural(len(list), "session")))
		}
	}
	if len(users) == 0 {
		return "", nil
	}
	return "did you mean " + strings.Join(users, ", or ") + "?", nil
}

// spellings returns other spellings of a user's name: in lower case, with and
// without the sign and the server of a Matrix id.
func spellings(user, homeserver string) []string {
	var all []string
	add := func(s string) {
		if s != user && s != "" && s != "@" && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	local, server, full := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	if !full {
		server = homeserver
	}
	for _, l := range []string{local, strings.ToLower(local)} {
		for _, s := range []string{server, strings.ToLower(server), homeserver} {
			if s != "" {
				add("@" + l + ":" + s)
				add(l + ":" + s)
			}
		}
		add(l)
		add("@" + l)
	}
	return all
}

// maxShown bounds the names in an error.
const maxShown = 10

// likeDevices lists the devices whose name is like one, or all of them.
func likeDevices(list []wire.SessionInfo, device string) string {
	var near, all []string
	for _, s := range list {
		if s.Device == "" || slices.Contains(all, s.Device) {
			continue
		}
		all = append(all, s.Device)
		if yamlfile.Distance(strings.ToLower(s.Device), strings.ToLower(device)) <= 2 {
			near = append(near, s.Device)
		}
	}
	switch {
	case len(near) > 0:
		return "did you mean " + shown(near, " or ") + "?"
	case len(all) > 0:
		return "sessions exist on " + shown(all, ", ")
	}
	return ""
}

func likeSessions(list []wire.SessionInfo) string {
	var all []string
	for _, s := range list {
		text := s.ID.String()
		if s.Device != "" {
			text += " on " + command.Quoted(s.Device)
		}
		all = append(all, text)
	}
	return "the live ones are " + strings.Join(cut(all), ", ")
}

func shown(names []string, separator string) string {
	for i := range names {
		names[i] = command.Quoted(names[i])
	}
	return strings.Join(cut(names), separator)
}

func cut(names []string) []string {
	if len(names) > maxShown {
		return append(names[:maxShown:maxShown], "…")
	}
	return names
}
