package storetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

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

func (m *Memory) Load() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Id, m.loadErr
}

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

// Markers opens a store with and without data, with and without a memory.
// wipe removes the data, replace puts another store's in its place.
func Markers(t *testing.T, open func(marker.Marker) (MarkedStore, error), wipe, replace func()) {
	u, id := Someone(), NewSession()
	mustOpen := func(m marker.Marker) MarkedStore {
		t.Helper()
		s, err := open(m)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	ready := func(what string, s MarkedStore, session string) {
		t.Helper()
		v, err := s.Load(t.Context(), u, id, revocation.DeviceTag{})
		if err != nil || string(v.Session) != session {
			t.Fatalf("%s: session is %q, %v, want %q", what, v.Session, err, session)
		}
		if err := s.Ready(t.Context()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	write := func(s MarkedStore) {
		t.Helper()
		if ok, err := s.Swap(t.Context(), One(u, store.Change{Session: id, New: []byte("a")})); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	closeStore := func(s MarkedStore) {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}

	m := new(Memory)
	s := mustOpen(m)
	ready("neither", s, "")
	write(s)
	closeStore(s)
	if len(m.Id) == 0 {
		t.Fatal("nothing was remembered")
	}
	first := bytes.Clone(m.Id)

	s = mustOpen(m)
	ready("both", s, "a")
	closeStore(s)

	newcomer := new(Memory)
	s = mustOpen(newcomer)
	ready("store only", s, "a")
	closeStore(s)
	if !bytes.Equal(newcomer.Id, first) {
		t.Errorf("adopted %q, want %q", newcomer.Id, first)
	}

	wipe()
	for range 2 { // opening it again does not make it better
		s = mustOpen(m)
		ExpectLost(t, "wiped", s, u)
		closeStore(s)
	}
	if !bytes.Equal(m.Id, first) {
		t.Errorf("memory became %q", m.Id)
	}
	s = mustOpen(m)
	m.fail = errors.New("disk full")
	if err := s.AcceptLoss(t.Context()); !errors.Is(err, m.fail) {
		t.Errorf("AcceptLoss: %v", err)
	}
	m.fail = nil
	if err := s.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready("accepted", s, "")
	write(s)
	if err := s.AcceptLoss(t.Context()); err != nil { // of no effect
		t.Fatal(err)
	}
	ready("accepted twice", s, "a")
	closeStore(s)
	s = mustOpen(m)
	ready("accepted and opened again", s, "a")
	closeStore(s)

	replace()
	theirs := new(Memory)
	s = mustOpen(theirs)
	write(s)
	closeStore(s)
	s = mustOpen(m)
	if v, err := s.Load(t.Context(), u, id, revocation.DeviceTag{}); !errors.Is(err, store.ErrLost) {
		t.Errorf("another store's session is %+v, %v", v, err)
	}
	ExpectLost(t, "replaced", s, u)
	if err := s.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready("replacement accepted", s, "a")
	if !bytes.Equal(m.Id, theirs.Id) { // others who use it must not be disturbed
		t.Errorf("accepted %q as %q", theirs.Id, m.Id)
	}
	closeStore(s)
	s = mustOpen(m)
	ready("replacement opened again", s, "a")
	closeStore(s)

	for what, bad := range map[string]*Memory{
		"foreign":    {Id: []byte("somebody else's marker")},
		"later":      {Id: bytes.Replace(first, []byte("-1:"), []byte("-2:"), 1)},
		"short":      {Id: first[:len(first)-1]},
		"unreadable": {loadErr: errors.New("permission denied")},
	} {
		if s, err := open(bad); err == nil {
			s.Close()
			t.Errorf("%s marker: opened", what)
		}
	}
	wipe()
	if s, err := open(&Memory{fail: errors.New("disk full")}); err == nil {
		s.Close()
		t.Error("opened a new store that cannot be remembered")
	}
}
