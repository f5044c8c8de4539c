package conn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Conns opens and tracks the connections of one client.
type Conns struct {
	// Allow returns an error for a primary, by its identity, that must not be used.
	// Nil: every primary is allowed.
	Allow func(primary string) error

	// Refused is called with the error of a server that evicts keys.
	Refused func(*RefusedError)

	cfg    *Config
	failed func(context.Context) // called when a server cannot be used
	age    atomic.Uint64

	mu   sync.Mutex
	open map[*trackedConn]struct{}
}

// Drop makes every connection unusable that was opened before. Commands in flight
// on them end without a reply.
func (c *Conns) Drop() {
	c.age.Add(1)
	c.mu.Lock()
	all := c.open
	c.open = nil
	c.mu.Unlock()
	for conn := range all {
		conn.raw.Close() // the pool closes it again
	}
}

// errDropped is one of the errors after which go-redis takes another connection.
var errDropped = fmt.Errorf("connection was opened before the primary changed: %w", io.EOF)

// dial opens a connection, with TLS if configured.
func (c *Conns) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	age := c.age.Load()
	dialer := &net.Dialer{Timeout: c.cfg.DialTimeout, KeepAlive: 5 * time.Minute}
	var conn net.Conn
	var err error
	if secure := c.cfg.Access.Load().TLS; secure == nil {
		conn, err = dialer.DialContext(ctx, network, addr)
	} else {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: secure}).DialContext(ctx, network, addr)
	}
	if err != nil {
		c.failed(ctx)
		return nil, err
	}
	tracked := &trackedConn{Conn: conn, raw: conn, conns: c, age: age}
	if t, ok := conn.(*tls.Conn); ok {
		tracked.raw = t.NetConn()
	}
	c.mu.Lock()
	if c.open == nil {
		c.open = make(map[*trackedConn]struct{})
	}
	c.open[tracked] = struct{}{}
	c.mu.Unlock()
	if c.age.Load() != age {
		return nil, errors.Join(errDropped, tracked.Close())
	}
	if raw, ok := conn.(syscall.Conn); ok {
		return &plainConn{tracked, raw}, nil
	}
	return &tlsConn{tracked}, nil
}

// trackedConn is a connection that fails once it was dropped.
type trackedConn struct {
	net.Conn
	raw   net.Conn // beneath TLS
	conns *Conns
	age   uint64
}

func (c *trackedConn) Close() error {
	c.conns.mu.Lock()
	delete(c.conns.open, c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

func (c *trackedConn) dropped() bool { return c.conns.age.Load() != c.age }

func (c *trackedConn) Write(b []byte) (int, error) {
	if c.dropped() {
		return 0, errDropped
	}
	n, err := c.Conn.Write(b)
	return n, c.explain(err)
}

func (c *trackedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.explain(err)
}

func (c *trackedConn) SetDeadline(t time.Time) error { return c.explain(c.Conn.SetDeadline(t)) }

func (c *trackedConn) SetReadDeadline(t time.Time) error { return c.explain(c.Conn.SetReadDeadline(t)) }

func (c *trackedConn) SetWriteDeadline(t time.Time) error {
	return c.explain(c.Conn.SetWriteDeadline(t))
}

// explain replaces errors on a dropped connection with errDropped.
func (c *trackedConn) explain(err error) error {
	if err != nil && c.dropped() {
		return errDropped
	}
	return err
}

// plainConn exposes the socket, so that go-redis can detect a closed peer.
type plainConn struct {
	*trackedConn
	socket syscall.Conn
}

func (c *plainConn) SyscallConn() (syscall.RawConn, error) { return c.socket.SyscallConn() }

// tlsConn lets go-redis detect that it was dropped. The bytes on its socket belong
// to TLS.
type tlsConn struct{ *trackedConn }

func (c *tlsConn) SyscallConn() (syscall.RawConn, error) {
	if c.dropped() {
		return nil, errDropped
	}
	return opaque{}, nil
}

// opaque is a socket that calls no function on itself.
type opaque struct{}

func (opaque) Control(func(uintptr)) error { return nil }

func (opaque) Read(func(uintptr) bool) error { return nil }

func (opaque) Write(func(uintptr) bool) error { return nil }

// onConnect checks the server of a new connection before the first command. A
// client with Sentinels connects to them too.
func (c *Conns) onConnect(ctx context.Context, cn *redis.Conn) error {
	err := c.check(ctx, cn)
	if err != nil {
		c.failed(ctx)
	}
	return err
}

func (c *Conns) check(ctx context.Context, cn *redis.Conn) error {
	if c.cfg.MasterName != "" && isSentinel(cn) {
		if err := c.cfg.Access.Load().logInToSentinel(ctx, cn); err != nil {
			return err
		}
	}
	// In a cluster, replicas redirect reads to their primary.
	if c.Allow != nil || !c.cfg.Cluster {
		if err := requirePrimary(ctx, cn); err != nil {
			return err
		}
	}
	if err := checkEviction(ctx, cn); err != nil {
		var refused *RefusedError
		if errors.As(err, &refused) {
			c.Refused(refused)
		}
		return err
	}
	if c.Allow == nil {
		return nil
	}
	primary, err := Identify(ctx, cn)
	if err != nil || primary == "" {
		return err
	}
	return c.Allow(primary)
}
