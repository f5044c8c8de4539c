package httpd

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"testing"

	"github.com/discharger/discharger/discharger/testkit"
)

// fakeConn is a connection from an address.
type fakeConn struct {
	net.Conn
	from   net.Addr
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.from }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

// TestConnectionsBounded opens more connections than there may be.
func TestConnectionsBounded(t *testing.T) {
	t.Parallel()
	const bound = 10
	for _, c := range []struct {
		name          string
		max, idle     int
		perPeer       int
		from          string // with the number of the connection
		active, stays int    // of 3*bound connections, the first ones are active
	}{
		{"one address", 1000, 1000, bound, "192.0.2.1", 0, bound},
		{"one /64", 1000, 1000, bound, "2001:db8::%x", 0, bound},
		{"one /48", 1000, 1000, bound, "2001:db8:0:%x::1", 0, bound},
		{"many /48", 1000, 1000, bound, "2001:db8:%x::1", 0, 3 * bound},
		{"a proxy", 1000, 1000, bound, "10.0.0.1", 0, 3 * bound},
		{"idle in all", 1000, bound, bound, "192.0.2.%d", 0, bound},
		{"descriptors", bound, 1000, 1000, "192.0.2.%d", 0, bound},
		{"descriptors, most in use", bound, 1000, 1000, "192.0.2.%d", bound - 1, bound},
		{"descriptors, all in use", bound, 1000, 1000, "192.0.2.%d", bound, bound},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			all := newConnections(log.New(io.Discard, "", 0))
			all.max, all.idle, all.perPeer = c.max, c.idle, c.perPeer
			var conns []*fakeConn
			for i := range 3 * bound {
				from := c.from
				if n := fmt.Sprintf(from, i+1); n != from+fmt.Sprintf("%%!(EXTRA int=%d)", i+1) {
					from = n
				}
				conn := &fakeConn{from: &net.TCPAddr{IP: net.ParseIP(from), Port: 1000 + i}}
				conns = append(conns, conn)
				all.state(conn, http.StateNew)
				if i < c.active {
					all.state(conn, http.StateActive)
				}
			}
			stays := 0
			for i, conn := range conns {
				if !conn.closed {
					stays++
				} else if i < c.active {
					t.Errorf("connection %d is closed, which is in use", i)
				}
			}
			if stays != c.stays {
				t.Errorf("%d connections stay, want %d", stays, c.stays)
			}
			for _, conn := range conns {
				all.state(conn, http.StateClosed)
			}
			if len(all.open) != 0 || all.queue.Len() != 0 || len(all.peers) != 0 {
				t.Errorf("%d open, %d idle and %d addresses are left", len(all.open), all.queue.Len(), len(all.peers))
			}
		})
	}
}

// TestIdleConnectionsLeaveRoom holds as many connections as it can that never
// send a whole request, and others are answered.
func TestIdleConnectionsLeaveRoom(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	w := New(Port{l}, &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)})
	w.connections.max = 20
	w.Serve(make(chan error, 1))
	t.Cleanup(func() { w.Close() })
	ask := func(conn net.Conn) {
		t.Helper()
		_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		testkit.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		testkit.NoError(t, err)
		testkit.NoError(t, resp.Body.Close())
	}
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", l.Addr().String())
		testkit.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	for range 50 {
		ask(dial()) // and keeps the connection
		_, err := io.WriteString(dial(), "GET / HTT")
		testkit.NoError(t, err)
	}
	ask(dial())
	w.connections.mu.Lock()
	defer w.connections.mu.Unlock()
	if n := len(w.connections.open); n > w.connections.max {
		t.Errorf("%d connections are open, want at most %d", n, w.connections.max)
	}
}
