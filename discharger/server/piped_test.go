package server_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// pipes is a listener within the process, which works where time is not real.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// servePiped has a server of the program serve within the process, with another
// limit on how long a request may take to be read and to be answered.
func servePiped(t *testing.T, srv *http.Server, limit time.Duration) *httptest.Server {
	srv.ReadTimeout, srv.WriteTimeout = limit, limit
	p := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	s := &httptest.Server{Listener: p, Config: srv}
	s.Start()
	s.Client().Transport.(*http.Transport).DialContext = p.dial
	t.Cleanup(s.Close)
	return s
}
