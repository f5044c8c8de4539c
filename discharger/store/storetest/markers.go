package storetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/marker"
)

// ExpectLost tries everything that could mistake a loss for an answer.
func ExpectLost(t testing.TB, what string, s store.Store, u store.UserKey) {
	t.Helper()
	id := NewSession()
	_, errLoad := s.Load(t.Context(), u, id, revocation.DeviceTag{})
	_, errList := s.List(t.Context(), u)
	ok1, errNew := s.Swap(t.Context(), One(u, store.Change{Session: id, New: []byte("a")}))
	ok2, errOld := s.Swap(t.Context(), One(u, store.Change{Session: id, Old: []byte("a"), New: []byte("b")}))
	ok3, errHome := s.SwapHomeserver(t.Context(), u.Homeserver, nil, []byte("a"))
	if ok1 || ok2 || ok3 {
		t.Errorf("%s: a swap was done", what)
	}
	for i, err := range []error{errLoad, errList, errNew, errOld, errHome, s.Ready(t.Context())} {
		if !errors.Is(err, store.ErrLost) {
			t.Errorf("%s: method %d: %v, want ErrStoreLost", what, i, err)
		}
	}
}

// Memory is a marker that lives as long as a test.
type Memory struct {
	mu      sync.Mutex
	Id      []byte
	fail    error
	saved   int
	loadErr error
}

// Load implements marker.Marker.
func (m *Memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Id, m.loadErr
}

// Save implements marker.Marker.
func (m *Memory) Save(id []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil {
		m.Id = bytes.Clone(id)
		m.saved++
	}
	return m.fail
}

// A MarkedStore is either store, seen by the tests that both have to pass.
type MarkedStore interface {
	store.Store
	AcceptLoss(context.Context) error
}

// Markers opens a store with and without data, with and without a marker. wipe
// removes the data, replace replaces it by the data of another store.
func Markers(t *testing.T, open func(marker.Marker) (MarkedStore, error), wipe, replace func()) {
	m := &markers{t: t, open: open, u: NewUser(), id: NewSession(), memory: new(Memory)}
	m.remembered()
	wipe()
	m.wiped()
	replace()
	m.replaced()
	m.unusable()
	wipe()
	if s, err := open(&Memory{fail: errors.New("disk full")}); err == nil {
		s.Close()
		t.Error("a new store was opened whose marker cannot be written")
	}
}

// markers is the state of the test Markers.
type markers struct {
	t      *testing.T
	open   func(marker.Marker) (MarkedStore, error)
	u      store.UserKey
	id     caveat.SessionID
	memory *Memory
	first  []byte // the identity of the first store
}

// with opens the store with a marker, calls f, and closes it.
func (m *markers) with(memory *Memory, f func(MarkedStore)) {
	m.t.Helper()
	s, err := m.open(memory)
	if err != nil {
		m.t.Fatal(err)
	}
	f(s)
	if err := s.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// ready expects a store that is ready and has a session.
func (m *markers) ready(what string, s MarkedStore, session string) {
	m.t.Helper()
	v, err := s.Load(m.t.Context(), m.u, m.id, revocation.DeviceTag{})
	if err != nil || string(v.Session) != session {
		m.t.Fatalf("%s: session is %q, %v, want %q", what, v.Session, err, session)
	}
	if err := s.Ready(m.t.Context()); err != nil {
		m.t.Fatalf("%s: %v", what, err)
	}
}

func (m *markers) write(s MarkedStore) {
	m.t.Helper()
	if ok, err := s.Swap(m.t.Context(), One(m.u, store.Change{Session: m.id, New: []byte("a")})); !ok || err != nil {
		m.t.Fatal(ok, err)
	}
}

// remembered opens a new store, and opens it again with its marker and with none.
func (m *markers) remembered() {
	m.with(m.memory, func(s MarkedStore) {
		m.ready("neither", s, "")
		m.write(s)
	})
	if len(m.memory.Id) == 0 {
		m.t.Fatal("the marker is empty")
	}
	m.first = bytes.Clone(m.memory.Id)
	m.with(m.memory, func(s MarkedStore) { m.ready("both", s, "a") })
	newcomer := new(Memory)
	m.with(newcomer, func(s MarkedStore) { m.ready("store only", s, "a") })
	if !bytes.Equal(newcomer.Id, m.first) {
		m.t.Errorf("adopted %q, want %q", newcomer.Id, m.first)
	}
}

// wiped opens a store without data, and accepts the loss.
func (m *markers) wiped() {
	for range 2 { // a second time changes nothing
		m.with(m.memory, func(s MarkedStore) { ExpectLost(m.t, "wiped", s, m.u) })
	}
	if !bytes.Equal(m.memory.Id, m.first) {
		m.t.Errorf("marker became %q", m.memory.Id)
	}
	m.with(m.memory, func(s MarkedStore) {
		m.memory.fail = errors.New("disk full")
		if err := s.AcceptLoss(m.t.Context()); !errors.Is(err, m.memory.fail) {
			m.t.Errorf("AcceptLoss: %v", err)
		}
		m.memory.fail = nil
		if err := s.AcceptLoss(m.t.Context()); err != nil {
			m.t.Fatal(err)
		}
		m.ready("accepted", s, "")
		m.write(s)
		if err := s.AcceptLoss(m.t.Context()); err != nil { // of no effect
			m.t.Fatal(err)
		}
		m.ready("accepted twice", s, "a")
	})
	m.with(m.memory, func(s MarkedStore) { m.ready("accepted and opened again", s, "a") })
}

// replaced opens the data of another store, and accepts it.
func (m *markers) replaced() {
	theirs := new(Memory)
	m.with(theirs, m.write)
	m.with(m.memory, func(s MarkedStore) {
		if v, err := s.Load(m.t.Context(), m.u, m.id, revocation.DeviceTag{}); !errors.Is(err, store.ErrLost) {
			m.t.Errorf("another store's session is %+v, %v", v, err)
		}
		ExpectLost(m.t, "replaced", s, m.u)
		if err := s.AcceptLoss(m.t.Context()); err != nil {
			m.t.Fatal(err)
		}
		m.ready("replacement accepted", s, "a")
		if !bytes.Equal(m.memory.Id, theirs.Id) { // other users of it must not be disturbed
			m.t.Errorf("accepted %q as %q", theirs.Id, m.memory.Id)
		}
	})
	m.with(m.memory, func(s MarkedStore) { m.ready("replacement opened again", s, "a") })
}

// unusable opens the store with markers that must be refused.
func (m *markers) unusable() {
	for what, bad := range map[string]*Memory{
		"foreign":    {Id: []byte("marker of another program")},
		"later":      {Id: bytes.Replace(m.first, []byte("-1:"), []byte("-2:"), 1)},
		"short":      {Id: m.first[:len(m.first)-1]},
		"unreadable": {loadErr: errors.New("permission denied")},
	} {
		if s, err := m.open(bad); err == nil {
			s.Close()
			m.t.Errorf("%s marker: opened", what)
		}
	}
}
