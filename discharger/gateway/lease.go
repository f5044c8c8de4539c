package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// leases let one request at a time touch a device at the homeserver: a login that
// names it, from before the homeserver is asked until the session is activated,
// and a logout, with the check that precedes it. They are of this process.
type leases struct {
	mu   sync.Mutex
	held map[leaseKey]*lease
}

// leaseKey names a device of a user. Without a user it is for logins whose user
// only the homeserver knows: with a token, or a mail address. So a logout needs
// that lease too, and takes it first.
type leaseKey struct{ user, device string }

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
	leasePatience    = 30 * time.Second // for the requests before to finish
	maxLeaseQueue    = 64               // requests that have a lease or wait for it
	maxOpenQueue     = 32               // logins among them
	maxOpenQueuePeer = 8                // of one address
)

var errLeased = errors.New("too many requests for one device, or they take too long")

// deviceKey returns the lease key of a device. A user counts by localpart,
// whether it is spelled @a:example.org, a or A: where one is another user after
// all, requests only wait for each other.
func deviceKey(user, device string) leaseKey {
	local, _, _ := strings.Cut(strings.TrimPrefix(user, "@"), ":")
	return leaseKey{user: strings.ToLower(local), device: device}
}

// claim is a request for a lease.
type claim struct {
	open bool         // a login whose password or token the homeserver has not seen yet
	peer netip.Prefix // its address; not valid: it has no bound of its own
}

// acquire waits for a lease. The caller has to call release once.
func (l *leases) acquire(ctx context.Context, key leaseKey, c claim) (release func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[leaseKey]*lease)
	}
	e := l.held[key]
	if e == nil {
		e = &lease{turn: make(chan struct{}, 1)}
		l.held[key] = e
	}
	if !e.admits(c) {
		l.mu.Unlock()
		return nil, errLeased
	}
	e.count(c, 1)
	l.mu.Unlock()
	timer := time.NewTimer(leasePatience)
	defer timer.Stop()
	select {
	case e.turn <- struct{}{}:
		return func() { <-e.turn; l.leave(key, e, c) }, nil
	case <-timer.C:
		err = errLeased
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.leave(key, e, c)
	return nil, err
}

func (e *lease) admits(c claim) bool {
	if e.users >= maxLeaseQueue {
		return false
	}
	return !c.open || e.open < maxOpenQueue && (!c.peer.IsValid() || e.peers[c.peer] < maxOpenQueuePeer)
}

func (e *lease) count(c claim, n int) {
	e.users += n
	if !c.open {
		return
	}
	e.open += n
	if e.peers == nil {
		e.peers = make(map[netip.Prefix]int)
	}
	if e.peers[c.peer] += n; e.peers[c.peer] == 0 {
		delete(e.peers, c.peer)
	}
}

// try takes a lease if no request has it or waits for it.
func (l *leases) try(key leaseKey) (release func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[key] != nil {
		return nil, false
	}
	if l.held == nil {
		l.held = make(map[leaseKey]*lease)
	}
	e := &lease{turn: make(chan struct{}, 1), users: 1}
	e.turn <- struct{}{}
	l.held[key] = e
	return func() { <-e.turn; l.leave(key, e, claim{}) }, true
}

func (l *leases) leave(key leaseKey, e *lease, c claim) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.count(c, -1); e.users == 0 {
		delete(l.held, key)
	}
}

// leased is the leases of one request.
type leased struct {
	keys    []leaseKey
	release []func()
	end     *time.Timer // of waiting for the homeserver; nil: there is no bound
}

// lease takes the lease of a device for an exchange, unless it has it. A session
// without a device needs none.
func (g *Gateway) lease(ctx context.Context, x *exchange, user, device string) error {
	return g.leaseBy(ctx, x, deviceKey(user, device), claim{})
}

// leaseOpen does the same for a login before the homeserver has agreed to it.
func (g *Gateway) leaseOpen(ctx context.Context, x *exchange, user, device string) error {
	return g.leaseBy(ctx, x, deviceKey(user, device), claim{open: true, peer: g.boundOf(x.client)})
}

func (g *Gateway) leaseBy(ctx context.Context, x *exchange, key leaseKey, c claim) error {
	if key.device == "" || slices.Contains(x.leased.keys, key) {
		return nil
	}
	release, err := g.leases.acquire(ctx, key, c)
	if err != nil {
		return err
	}
	x.leased.keys = append(x.leased.keys, key)
	x.leased.release = append(x.leased.release, release)
	return nil
}

// leaseLogout takes the leases of a device that is to be logged out.
func (g *Gateway) leaseLogout(ctx context.Context, x *exchange, user, device string) error {
	if err := g.lease(ctx, x, "", device); err != nil {
		return err
	}
	return g.lease(ctx, x, user, device)
}

// tryLogout takes the same leases if no request has them or waits for them.
func (g *Gateway) tryLogout(user, device string) (release func(), err error) {
	unnamed, ok := g.leases.try(deviceKey("", device))
	if !ok {
		return nil, errLeased
	}
	named, ok := g.leases.try(deviceKey(user, device))
	if !ok {
		unnamed()
		return nil, errLeased
	}
	return func() { named(); unnamed() }, nil
}

var errHeld = errors.New("the homeserver takes too long while other requests wait for the device")

// pass passes a request on. While it has leases, the homeserver has to answer in
// time.
func (g *Gateway) pass(w http.ResponseWriter, r *http.Request, x *exchange) {
	if len(x.leased.keys) > 0 {
		ctx, cancel := context.WithCancelCause(r.Context())
		defer cancel(nil)
		x.leased.end = time.AfterFunc(g.cfg.patience.leased, func() { cancel(errHeld) })
		r = r.WithContext(ctx)
	}
	if x.match.Poll() {
		ctx, p := g.polls.begin(r.Context())
		defer p.end()
		x.poll, r = p, r.WithContext(ctx)
	}
	g.proxy.ServeHTTP(w, r)
}

// releaseLeases gives back the leases of an exchange.
func (x *exchange) releaseLeases() {
	if x.leased.end != nil {
		x.leased.end.Stop()
	}
	for _, f := range x.leased.release {
		f()
	}
	x.leased = leased{}
}
