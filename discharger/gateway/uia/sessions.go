// Package uia remembers parameters of user-interactive authentication (Matrix
// client-server API, section 4.8) between the requests of one session.
//
// The homeserver answers a request with 401, flows and the name of a session; the
// client repeats the request with a member auth that has this name, and the other
// members may be missing then. [Sessions] keeps those that the gateway needs, in
// memory bounded in bytes and in time.
package uia

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/gateway/matrix"
)

const (
	// Life is how long parameters are kept: as long as Synapse keeps its sessions.
	Life = 48 * time.Hour
	// Memory bounds the parameters of users, and those of registrations, in bytes.
	Memory = 2 << 20
)

// Params are the members of a request that the gateway needs.
type Params struct {
	Refresh       Choice   // of registration: refresh_token
	Device        string   // of registration: device_id
	Devices       []string // of delete_devices; nil: absent
	LogoutDevices Choice   // of a change of password: logout_devices
}

// Choice is a boolean member that may be absent.
type Choice uint8

// The choices.
const (
	Absent Choice = iota
	No
	Yes
)

// size returns the approximate memory of the parameters in bytes.
func (a *Params) size() int {
	n := 256 + len(a.Device)
	for _, d := range a.Devices {
		n += 16 + len(d)
	}
	return n
}

// Over returns the parameters of a request, completed by those of the requests before
// it; nil: there are none.
func (a Params) Over(before *Params) Params {
	if before == nil {
		return a
	}
	a.Refresh = cmp.Or(a.Refresh, before.Refresh)
	a.Device = cmp.Or(a.Device, before.Device)
	a.LogoutDevices = cmp.Or(a.LogoutDevices, before.LogoutDevices)
	if a.Devices == nil {
		a.Devices = before.Devices
	}
	return a
}

// ChoiceOf returns the choice of a boolean member.
func ChoiceOf(v jsontext.Value) Choice {
	switch v.Kind() {
	case 't':
		return Yes
	case 'f':
		return No
	}
	return Absent
}

// Key names a session of user-interactive authentication together with the operation
// and the user that Synapse binds it to.
type Key [sha256.Size]byte

// KeyOf returns the key of a session.
func KeyOf(route matrix.Effect, user, session string) Key {
	key := []byte{byte(route)}
	for _, part := range []string{user, session} {
		key = append(binary.AppendUvarint(key, uint64(len(part))), part...)
	}
	return sha256.Sum256(key)
}

// Sessions holds the parameters of the most recent sessions, up to a number of bytes.
// The zero value holds none. It may be used concurrently.
type Sessions struct {
	room int // bytes
	kept *cache.Cache[Key, entry]
}

type entry struct {
	params Params
	until  time.Time
}

// NewSessions returns sessions of up to room bytes in all.
func NewSessions(room int) *Sessions {
	kept, _ := cache.New(cache.Config[Key, entry]{ // fails without room only: a nil cache is empty
		Bytes: room, Idle: Life,
		Size: func(_ Key, e entry) int { return e.params.size() },
		Hash: func(k Key) uint64 { return binary.LittleEndian.Uint64(k[:]) },
	})
	return &Sessions{room: room, kept: kept}
}

// Get returns the parameters of a session; nil: they are not kept.
func (s *Sessions) Get(key Key, now time.Time) *Params {
	if e, ok := s.kept.Get(key); ok && now.Before(e.until) {
		return &e.params
	}
	return nil
}

// Put keeps the parameters of a session for [Life], unless they take more than a 64th
// of the room.
func (s *Sessions) Put(key Key, a Params, now time.Time) {
	if a.size() > s.room/64 {
		s.kept.Remove(key)
		return
	}
	s.kept.Put(key, entry{params: a, until: now.Add(Life)})
}

// Len returns the number of kept sessions.
func (s *Sessions) Len() int { return s.kept.Len() }
