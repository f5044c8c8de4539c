package uia

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/gateway/matrix"
)

const (
	Life   = 48 * time.Hour // Synapse keeps its sessions as long
	Memory = 2 << 20        // bytes, of users and of registrations each
)

// Params are the members of a request that the gateway needs.
type Params struct {
	Refresh       Choice   // of registration: refresh_token
	Device        string   // of registration: device_id
	Devices       []string // of delete_devices; nil: absent
	LogoutDevices Choice   // of a change of password: logout_devices
}

// Choice is a boolean member that may be missing.
type Choice uint8

const (
	Absent Choice = iota
	No
	Yes
)

// size returns about how many bytes the memory needs for it.
func (a *Params) size() int {
	n := 256 + len(a.Device)
	for _, d := range a.Devices {
		n += 16 + len(d)
	}
	return n
}

// Over returns the parameters of a request, completed by those of the requests before
// it.
func (a Params) Over(before *Params) Params {
	if before == nil {
		return a
	}
	if a.Refresh == Absent {
		a.Refresh = before.Refresh
	}
	if a.Device == "" {
		a.Device = before.Device
	}
	if a.Devices == nil {
		a.Devices = before.Devices
	}
	if a.LogoutDevices == Absent {
		a.LogoutDevices = before.LogoutDevices
	}
	return a
}

// ChoiceOf reads a boolean member.
func ChoiceOf(v jsontext.Value) Choice {
	switch v.Kind() {
	case 't':
		return Yes
	case 'f':
		return No
	}
	return Absent
}

// Key names a session of user-interactive authentication together with what
// Synapse binds it to: the operation, and whose it is.
type Key [sha256.Size]byte

func KeyOf(route matrix.Effect, user, session string) Key {
	key := []byte{byte(route)}
	for _, part := range []string{user, session} {
		key = append(binary.AppendUvarint(key, uint64(len(part))), part...)
	}
	return sha256.Sum256(key)
}

// Sessions holds the parameters of sessions, the most recent ones up to a number of
// bytes. The zero value has no room. It may be used
// concurrently.
type Sessions struct {
	mu    sync.Mutex
	room  int // bytes
	used  int
	byKey map[Key]*list.Element
	Order list.List // of *uiaEntry, the oldest first
}

type uiaEntry struct {
	key    Key
	params Params
	until  time.Time
}

func NewSessions(room int) *Sessions {
	return &Sessions{room: room, byKey: make(map[Key]*list.Element)}
}

// Get returns the parameters of a session; nil: they are not remembered.
func (s *Sessions) Get(key Key, now time.Time) *Params {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.byKey[key]; el != nil {
		if e := entryIn(el); now.Before(e.until) {
			return &e.params
		}
	}
	return nil
}

// Put keeps the parameters of a session, unless they take more than a part of the room.
func (s *Sessions) Put(key Key, a Params, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(s.byKey[key])
	if a.size() > s.room/64 {
		return
	}
	s.byKey[key] = s.Order.PushBack(&uiaEntry{key: key, params: a, until: now.Add(Life)})
	s.used += a.size()
	for el := s.Order.Front(); el != nil && (s.used > s.room || !now.Before(entryIn(el).until)); el = s.Order.Front() {
		s.remove(el)
	}
}

func (s *Sessions) remove(el *list.Element) {
	if el == nil {
		return
	}
	e := entryIn(el)
	s.Order.Remove(el)
	delete(s.byKey, e.key)
	s.used -= e.params.size()
}

func entryIn(el *list.Element) *uiaEntry {
	e, _ := el.Value.(*uiaEntry)
	return e
}
