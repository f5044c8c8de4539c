package admission

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// Leases grant exclusive access to a device at the homeserver: to a login that names
// it, from before its request is passed on until its session is activated, and to a
// logout with the check that precedes it. They are local to this process.
type Leases struct {
	mu   sync.Mutex
	held map[DeviceKey]*lease
}

// DeviceKey names a device of a user. Logins with a token or a mail address, whose
// user is unknown before the homeserver's answer, have a key without a user. So a
// logout needs that lease too, and takes it first.
type DeviceKey struct{ User, Device string }

type lease struct {
	turn  chan struct{}    // holds a value while the lease is taken
	users int              // holder and waiters
	open  int              // the users whose claim is open
	peers clientaddr.Tally // the same by address
}

// Bounds of waiting for a device. The names of devices are not secret, and a login on
// them needs no credentials to begin: open claims leave room in the queue for the
// user's own requests.
const (
	leaseTimeout     = 30 * time.Second // of a wait
	MaxLeaseQueue    = 64               // of requests that hold a lease or wait for it
	maxOpenQueue     = 32               // of open claims among them
	MaxOpenQueuePeer = 8                // of open claims of one address
)

// ErrBusy is returned if the queue of a device is full, or a lease is not free in time.
var ErrBusy = errors.New("too many requests for one device, or they take too long")

// Device returns the lease key of a device. The spellings @a:example.org, a and A of
// a user have one key. If they are different users, their requests only wait for each
// other.
func Device(user, device string) DeviceKey {
	local, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	return DeviceKey{User: strings.ToLower(local), Device: device}
}

// Claim is a request for a lease.
type Claim struct {
	Open bool         // a login whose password or token is not verified yet
	Peer netip.Prefix // its address; not valid: no bound of its own
	sole bool         // only if the queue is empty
}

// Acquire waits for a lease. The caller calls release once. The error is [ErrBusy] or
// that of ctx.
func (l *Leases) Acquire(ctx context.Context, key DeviceKey, c Claim) (release func(), err error) {
	e := l.join(key, c)
	if e == nil {
		return nil, ErrBusy
	}
	select {
	case e.turn <- struct{}{}:
		return func() { <-e.turn; l.leave(key, e, c) }, nil
	case <-time.After(leaseTimeout):
		err = ErrBusy
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.leave(key, e, c)
	return nil, err
}

// Try takes a lease if no request holds it or waits for it.
func (l *Leases) Try(key DeviceKey) (release func(), ok bool) {
	c := Claim{sole: true}
	e := l.join(key, c)
	if e == nil {
		return nil, false
	}
	return func() { <-e.turn; l.leave(key, e, c) }, true
}

// join adds a request to the queue of a device; nil: the queue is full. A sole request
// has the lease then.
func (l *Leases) join(key DeviceKey, c Claim) *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.held[key]
	if e == nil {
		e = &lease{turn: make(chan struct{}, 1), peers: clientaddr.Tally{}}
	}
	if !e.admits(c) {
		return nil
	}
	if l.held == nil {
		l.held = make(map[DeviceKey]*lease)
	}
	l.held[key] = e
	if e.count(c, 1); c.sole {
		e.turn <- struct{}{}
	}
	return e
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
	if e.users >= MaxLeaseQueue || c.sole && e.users > 0 {
		return false
	}
	return !c.Open || e.open < maxOpenQueue && !e.peers.Full(c.Peer, MaxOpenQueuePeer, maxOpenQueue)
}

func (e *lease) count(c Claim, n int) {
	e.users += n
	if c.Open {
		e.open += n
		e.peers.Add(c.Peer, n)
	}
}

func (l *Leases) leave(key DeviceKey, e *lease, c Claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.count(c, -1); e.users == 0 {
		delete(l.held, key)
	}
}
