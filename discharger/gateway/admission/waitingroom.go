package admission

import (
	"errors"
	"net/netip"
	"sync"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// The bounds of waiting.
const (
	maxWaiters       = 4096           // in all
	maxOpenWaiters   = maxWaiters / 2 // of them, without a token
	waitersPerClient = 256            // at one address
	waitersPerSite   = maxWaiters / 4 // at the addresses of one IPv6 /48
)

var (
	ErrFull = errors.New("too many requests wait for the service")
)

// WaitingRoom counts the requests that wait.
type WaitingRoom struct {
	Drained chan struct{} // closed by Drain

	mu      sync.Mutex
	all     int
	open    int // without a token
	clients map[netip.Prefix]int
}

func NewWaitingRoom() *WaitingRoom {
	return &WaitingRoom{Drained: make(chan struct{}), clients: make(map[netip.Prefix]int)}
}

// Enter counts a request of a peer, which has no bound of its own if it is not
// valid, unless there are too many. The caller calls exit once.
func (w *WaitingRoom) Enter(peer netip.Prefix, open bool) (exit func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	site := clientaddr.Site(peer)
	switch {
	case w.all >= maxWaiters, open && w.open >= maxOpenWaiters:
		return nil, ErrFull
	case peer.IsValid() && w.clients[peer] >= waitersPerClient, site.IsValid() && w.clients[site] >= waitersPerSite:
		return nil, ErrFull
	}
	w.count(peer, open, 1)
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.count(peer, open, -1)
	}, nil
}

func (w *WaitingRoom) count(peer netip.Prefix, open bool, n int) {
	w.all += n
	if open {
		w.open += n
	}
	for _, counted := range [...]netip.Prefix{peer, clientaddr.Site(peer)} {
		if !counted.IsValid() {
			continue
		}
		if w.clients[counted] += n; w.clients[counted] == 0 {
			delete(w.clients, counted)
		}
	}
}

// Size returns how many requests wait.
func (w *WaitingRoom) Size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all
}

// Drain ends the waits of all requests. It may be called more than once.
func (w *WaitingRoom) Drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.Drained:
	default:
		close(w.Drained)
	}
}
