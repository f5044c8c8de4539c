package httpd

import (
	linked "container/list"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// connections bounds the connections of a port, each of which takes a file descriptor and
// some memory. A connection is idle between two requests, and until the headers of one
// have arrived; requests have limits of their own. Beyond a bound, the connections that
// have been idle for longest are closed. Their clients connect again when they need to.
//
// As with the limits of requests, addresses that do not come from the Internet have
// no bound of their own: a proxy there holds connections for all clients.
type connections struct {
	max     int // open ones
	idle    int // idle ones
	perPeer int // idle ones of one address, an IPv6 /48
	log     *log.Logger

	mu     sync.Mutex
	open   map[net.Conn]*openConn
	queue  linked.List                   // of idle ones, longest first
	peers  map[netip.Prefix]*linked.List // likewise, by address
	closed rate.Sometimes                // limits log lines
}

const (
	maxIdle        = 16384
	maxIdlePerPeer = 512
)

// openConn is a connection with its places in the queues, nil while it is not idle.
type openConn struct {
	conn        net.Conn
	peer        netip.Prefix // invalid: it has no bound of its own
	all, ofPeer *linked.Element
}

func newConnections(l *log.Logger) *connections {
	return &connections{
		max: maxConnections(), idle: maxIdle, perPeer: maxIdlePerPeer, log: l,
		open: make(map[net.Conn]*openConn), peers: make(map[netip.Prefix]*linked.List), closed: rate.Sometimes{Interval: time.Minute},
	}
}

// maxConnections returns how many connections one port may have: a quarter of the
// file descriptors. The rest is for another port, upstream connections, store and files.
func maxConnections() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 256
	}
	return int(min(files.Cur/4, 1<<20))
}

// state follows a connection; see [http.Server.ConnState].
func (c *connections) state(conn net.Conn, s http.ConnState) {
	for _, surplus := range c.change(conn, s) {
		_ = surplus.Close() // its client comes back
		c.closed.Do(func() { c.log.Print("too many connections, closing those that are idle for longest") })
	}
}

// change records a state, and returns the connections to be closed.
func (c *connections) change(conn net.Conn, s http.ConnState) (surplus []net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.open[conn]
	switch {
	case s == http.StateNew:
		o = &openConn{conn: conn, peer: boundedPeer(conn.RemoteAddr())}
		c.open[conn] = o
		c.enqueue(o)
	case o == nil: // it is being closed
	case s == http.StateIdle:
		c.enqueue(o)
	case s == http.StateActive:
		c.dequeue(o)
	default:
		c.forget(o)
	}
	if s != http.StateNew && s != http.StateIdle {
		return nil
	}
	for o != nil && o.peer.IsValid() && c.peers[o.peer] != nil && c.peers[o.peer].Len() > c.perPeer {
		surplus = append(surplus, c.forget(c.peers[o.peer].Front().Value.(*openConn)))
	}
	for c.queue.Len() > 0 && (len(c.open) > c.max || c.queue.Len() > c.idle) {
		surplus = append(surplus, c.forget(c.queue.Front().Value.(*openConn)))
	}
	return surplus
}

func (c *connections) enqueue(o *openConn) {
	c.dequeue(o)
	o.all = c.queue.PushBack(o)
	if !o.peer.IsValid() {
		return
	}
	if c.peers[o.peer] == nil {
		c.peers[o.peer] = linked.New()
	}
	o.ofPeer = c.peers[o.peer].PushBack(o)
}

func (c *connections) dequeue(o *openConn) {
	if o.all != nil {
		c.queue.Remove(o.all)
	}
	if o.ofPeer != nil {
		c.peers[o.peer].Remove(o.ofPeer)
		if c.peers[o.peer].Len() == 0 {
			delete(c.peers, o.peer)
		}
	}
	o.all, o.ofPeer = nil, nil
}

func (c *connections) forget(o *openConn) net.Conn {
	c.dequeue(o)
	delete(c.open, o.conn)
	return o.conn
}

// boundedPeer returns the network that an address counts for; invalid: it has no bound.
func boundedPeer(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	if ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() {
		return netip.Prefix{}
	}
	network := clientaddr.Network(ip)
	if site := clientaddr.Site(network); site.IsValid() {
		return site
	}
	return network
}
