package admission

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Leases let one request at a time touch a device at the homeserver: a login that
// names it, from before the homeserver is asked until the session is activated,
// and a logout, with the check that precedes it. They are of this process.
type Leases struct {
	mu   sync.Mutex
	held map[DeviceKey]*lease
}

// DeviceKey names a device of a user. Without a user it is for logins whose user
// only the homeserver knows: with a token, or a mail address. So a logout needs
// that lease too, and takes it first.
type DeviceKey struct{ User, Device string }

type lease struct {
	turn  chan struct{} // holds a value while the lease is taken
	users int           // holder and waiters
	// Of them, those that have shown neither token nor password yet, in all and by
	// address.
	open  int
	peers map[netip.Prefix]int
}

// The bounds of waiting for a device. Others know the names of a user's devices, and
// anyone can begin logins on them: these must not be in the way of the user's own
// requests.
const (
	leaseTimeout     = 30 * time.Second // for the requests before to finish
	MaxLeaseQueue    = 64               // requests that have a lease or wait for it
	maxOpenQueue     = 32               // logins among them
	MaxOpenQueuePeer = 8                // of one address
)

var ErrBusy = errors.New("too many requests for one device, or they take too long")

// Device returns the lease key of a device. A user counts by localpart,
// whether it is spelled @a:example.org, a or A: where one is another user after
// all, requests only wait for each other.
func Device(user, device string) DeviceKey {
	local, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	return DeviceKey{User: strings.ToLower(local), Device: device}
}

// Claim is a request for a lease.
type Claim struct {
	Open bool         // a login whose password or token the homeserver has not seen yet
	Peer netip.Prefix // its address; not valid: it has no bound of its own
}

// Acquire waits for a lease. The caller has to call release once.
func (l *Leases) Acquire(ctx context.Context, key DeviceKey, c Claim) (release func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[DeviceKey]*lease)
	}
	e := l.held[key]
	if e == nil {
		e = &lease{turn: make(chan struct{}, 1)}
		l.held[key] = e
	}
	if !e.admits(c) {
		l.mu.Unlock()
		return nil, ErrBusy
	}
	e.count(c, 1)
	l.mu.Unlock()
	timer := time.NewTimer(leaseTimeout)
	defer timer.Stop()
	select {
	case e.turn <- struct{}{}:
		return func() { <-e.turn; l.leave(key, e, c) }, nil
	case <-timer.C:
		err = ErrBusy
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.leave(key, e, c)
	return nil, err
}

// Queue returns the number of requests that hold a lease or wait for it.
func (l *Leases) Queue(key DeviceKey) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.held[key]; e != nil {
		return e.users
	}
	return 0
}

func (e *lease) admits(c Claim) bool {
	if e.users >= MaxLeaseQueue {
		return false
	}
	return !c.Open || e.open < maxOpenQueue && (!c.Peer.IsValid() || e.peers[c.Peer] < MaxOpenQueuePeer)
}

func (e *lease) count(c Claim, n int) {
	e.users += n
	if !c.Open {
		return
	}
	e.open += n
	if e.peers == nil {
		e.peers = make(map[netip.Prefix]int)
	}
	if e.peers[c.Peer] += n; e.peers[c.Peer] == 0 {
		delete(e.peers, c.Peer)
	}
}

// Try takes a lease if no request has it or waits for it.
func (l *Leases) Try(key DeviceKey) (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[key] != nil {
		return nil, false
	}
	if l.held == nil {
		l.held = make(map[DeviceKey]*lease)
	}
	e := &lease{turn: make(chan struct{}, 1), users: 1}
	e.turn <- struct{}{}
	l.held[key] = e
	return func() { <-e.turn; l.leave(key, e, Claim{}) }, true
}

func (l *Leases) leave(key DeviceKey, e *lease, c Claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.count(c, -1); e.users == 0 {
		delete(l.held, key)
	}
}
