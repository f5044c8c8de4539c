package redis

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

// links makes the connections of one client. Those to anything but a primary
// are refused; and with a guard, those to a primary that may not have all that
// this process has revoked.
//
// Connections that were made before something changed must not be used after
// it: go-redis keeps them in pools, from where they would come back when the
// server they lead to has become another. So each knows when it was made, and
// can no longer be written to after drop.
type links struct {
	cfg     *Config
	guard   *guardian // nil: any primary will do
	age     atomic.Uint64
	refuse  func(*refusedError)   // called when a server must not be used
	trouble func(context.Context) // called when a server could not be reached; nil: nobody cares

	mu   sync.Mutex
	made map[*link]struct{} // to be closed by drop
}

// drop makes all connections useless that have been made so far. What is under
// way on them ends without an answer.
func (l *links) drop() {
	l.age.Add(1)
	l.mu.Lock()
	all := l.made
	l.made = nil
	l.mu.Unlock()
	for c := range all {
		c.raw.Close() // whoever holds it closes it once more, and is told then
	}
}

// errDropped is one of the errors after which go-redis takes another
// connection.
var errDropped = fmt.Errorf("the connection is from before the primary changed: %w", io.EOF)

// dial does what go-redis would do by itself.
func (l *links) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	age := l.age.Load()
	dialer := &net.Dialer{Timeout: l.cfg.DialTimeout, KeepAlive: 5 * time.Minute}
	var conn net.Conn
	var err error
	secure := l.cfg.access.Load().TLS
	if secure == nil {
		conn, err = dialer.DialContext(ctx, network, addr)
	} else {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: secure}).DialContext(ctx, network, addr)
	}
	if err != nil {
		l.report(ctx)
		return nil, err
	}
	c := &link{Conn: conn, raw: conn, links: l, age: age}
	if t, ok := conn.(*tls.Conn); ok {
		c.raw = t.NetConn()
	}
	l.mu.Lock()
	if l.made == nil {
		l.made = make(map[*link]struct{})
	}
	l.made[c] = struct{}{}
	l.mu.Unlock()
	if l.age.Load() != age {
		return nil, errors.Join(errDropped, c.Close())
	}
	if raw, ok := conn.(syscall.Conn); ok {
		return &rawLink{c, raw}, nil
	}
	return &tlsLink{c}, nil
}

func (l *links) report(ctx context.Context) {
	if l.trouble != nil {
		l.trouble(ctx)
	}
}

type link struct {
	net.Conn
	raw   net.Conn // beneath TLS
	links *links
	age   uint64
}

func (l *link) Close() error {
	l.links.mu.Lock()
	delete(l.links.made, l)
	l.links.mu.Unlock()
	return l.Conn.Close()
}

func (l *link) dropped() bool { return l.links.age.Load() != l.age }

func (l *link) Write(b []byte) (int, error) {
	if l.dropped() {
		return 0, errDropped
	}
	n, err := l.Conn.Write(b)
	return n, l.explain(err)
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	return n, l.explain(err)
}

func (l *link) SetDeadline(t time.Time) error { return l.explain(l.Conn.SetDeadline(t)) }

func (l *link) SetReadDeadline(t time.Time) error { return l.explain(l.Conn.SetReadDeadline(t)) }

func (l *link) SetWriteDeadline(t time.Time) error { return l.explain(l.Conn.SetWriteDeadline(t)) }

// explain says of an error on a connection that was dropped that it was.
func (l *link) explain(err error) error {
	if err != nil && l.dropped() {
		return errDropped
	}
	return err
}

// rawLink is a link of which go-redis can see whether the server has closed it.
type rawLink struct {
	*link
	raw syscall.Conn
}

func (l *rawLink) SyscallConn() (syscall.RawConn, error) { return l.raw.SyscallConn() }

// tlsLink is a link of which go-redis can see whether it was dropped, and no
// more: what is on the wire is for TLS to read.
type tlsLink struct{ *link }

func (l *tlsLink) SyscallConn() (syscall.RawConn, error) {
	if l.dropped() {
		return nil, errDropped
	}
	return unlooked{}, nil
}

// unlooked is a raw connection on which nobody gets to see anything.
type unlooked struct{}

func (unlooked) Control(func(uintptr)) error { return nil }

func (unlooked) Read(func(uintptr) bool) error { return nil }

func (unlooked) Write(func(uintptr) bool) error { return nil }

// greet looks at the server behind a new connection before anything else is
// asked of it. Sentinels are looked at too, on the way to the primary.
func (l *links) greet(ctx context.Context, cn *redis.Conn) error {
	err := l.judge(ctx, cn)
	if err != nil {
		l.report(ctx)
	}
	return err
}

func (l *links) judge(ctx context.Context, cn *redis.Conn) error {
	if l.cfg.MasterName != "" && isSentinel(cn) {
		if err := l.cfg.access.Load().logInToSentinel(ctx, cn); err != nil {
			return err
		}
	}
	// A cluster's replicas send reads to the primary themselves.
	if l.guard != nil || !l.cfg.Cluster {
		if err := requirePrimary(ctx, cn); err != nil {
			return err
		}
	}
	if err := judgePolicy(ctx, cn); err != nil {
		var refused *refusedError
		if errors.As(err, &refused) {
			l.refuse(refused)
		}
		return err
	}
	if l.guard == nil {
		return nil
	}
	who, err := identifyPrimary(ctx, cn)
	if err != nil || who == "" {
		return err
	}
	return l.guard.admit(who)
}

// An informer can be asked who it is: a connection, or the client of a server.
type informer interface {
	Pipeline() redis.Pipeliner
}

// identifyPrimary returns what tells one life of a primary from every other:
// its process, and the history that its replicas share with it, which ends
// when it is promoted. A Sentinel has no such thing.
func identifyPrimary(ctx context.Context, server informer) (string, error) {
	pipe := server.Pipeline()
	process, replication := pipe.Info(ctx, "server"), pipe.Info(ctx, "replication")
	if _, err := pipe.Exec(ctx); err != nil {
		return "", err
	}
	s, r := parseInfo(process.Val()), parseInfo(replication.Val())
	if s["redis_mode"] == "sentinel" {
		return "", nil
	}
	if role := r["role"]; role != "master" {
		return "", fmt.Errorf("%w: its role is %.20q", errNotPrimary, role)
	}
	if s["run_id"] == "" || r["master_replid"] == "" {
		return "", errors.New("the server does not say who it is")
	}
	return s["run_id"] + " " + r["master_replid"], nil
}

var errNotPrimary = errors.New("the server is not a primary")
