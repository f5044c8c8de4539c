package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
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
// it: go-redis keeps them in pools, from where they would come back when a
// replica they lead to has been promoted. So each knows when it was made, and
// can no longer be written to after drop.
type links struct {
	cfg     *RedisConfig
	guard   *guardian // nil: any primary will do
	age     atomic.Uint64
	trouble func(context.Context) // called when a server could not be reached; nil: nobody cares
}

// drop makes all connections useless that have been made so far.
func (l *links) drop() { l.age.Add(1) }

var errDropped = errors.New("the connection is from before the primary changed")

// dial does what go-redis would do by itself.
func (l *links) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	age := l.age.Load()
	dialer := &net.Dialer{Timeout: l.cfg.DialTimeout, KeepAlive: 5 * time.Minute}
	var conn net.Conn
	var err error
	if l.cfg.TLS == nil {
		conn, err = dialer.DialContext(ctx, network, addr)
	} else {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: l.cfg.TLS}).DialContext(ctx, network, addr)
	}
	if err != nil {
		l.report(ctx)
		return nil, err
	}
	link := &link{Conn: conn, links: l, age: age}
	if raw, ok := conn.(syscall.Conn); ok {
		return &rawLink{link, raw}, nil
	}
	return link, nil
}

func (l *links) report(ctx context.Context) {
	if l.trouble != nil {
		l.trouble(ctx)
	}
}

type link struct {
	net.Conn
	links *links
	age   uint64
}

func (l *link) Write(b []byte) (int, error) {
	if l.links.age.Load() != l.age {
		return 0, errDropped
	}
	return l.Conn.Write(b)
}

// rawLink is a link of which go-redis can see whether the server has closed it.
type rawLink struct {
	*link
	raw syscall.Conn
}

func (l *rawLink) SyscallConn() (syscall.RawConn, error) { return l.raw.SyscallConn() }

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
	if l.guard == nil {
		if l.cfg.Cluster { // a cluster's replicas send reads to the primary themselves
			return nil
		}
		return requirePrimary(ctx, cn)
	}
	if err := requirePrimary(ctx, cn); err != nil {
		return err
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
