package admission

import (
	"errors"
	"net/netip"
	"sync"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// Bounds of the requests that wait.
const (
	maxWaiters       = 4096           // in all
	maxOpenWaiters   = maxWaiters / 2 // without a token
	waitersPerClient = 256            // of one address
	waitersPerSite   = maxWaiters / 4 // of one IPv6 /48
)

// ErrFull is returned if too many requests wait.
var ErrFull = errors.New("too many requests wait for the service")

// WaitingRoom counts the requests that wait for the service.
type WaitingRoom struct {
	Drained chan struct{} // closed by Drain

	mu      sync.Mutex
	all     int
	open    int // without a token
	clients clientaddr.Tally
}

// NewWaitingRoom returns an empty room.
func NewWaitingRoom() *WaitingRoom {
	return &WaitingRoom{Drained: make(chan struct{}), clients: clientaddr.Tally{}}
}

// Enter counts a request of a peer, or returns [ErrFull]. A peer that is not valid has
// no bound of its own. The caller calls exit once.
func (w *WaitingRoom) Enter(peer netip.Prefix, open bool) (exit func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all >= maxWaiters || open && w.open >= maxOpenWaiters || w.clients.Full(peer, waitersPerClient, waitersPerSite) {
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
	w.clients.Add(peer, n)
}

// Size returns the number of requests that wait.
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
