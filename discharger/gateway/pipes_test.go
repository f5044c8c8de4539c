package gateway

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
)

// pipes replace the network under testing/synctest: a goroutine that waits for a pipe
// waits for another goroutine of the bubble. Nil pipes are the network.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	client    *http.Transport
}

func newPipes() *pipes {
	p := &pipes{listeners: make(map[string]*pipeListener)}
	p.client = &http.Transport{DialContext: p.dial, MaxIdleConnsPerHost: 1024}
	return p
}

// serve starts a server.
func (p *pipes) serve(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	if p != nil {
		_ = s.Listener.Close()
		s.Listener = p.listen()
	}
	s.Start()
	return s
}

// transport returns the transport of a client of the servers.
func (p *pipes) transport() http.RoundTripper {
	if p == nil {
		return http.DefaultTransport
	}
	return p.client
}

func (p *pipes) listen() *pipeListener {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &pipeListener{
		addr: pipeAddr(fmt.Sprintf("127.0.0.1:%d", len(p.listeners)+1)), conns: make(chan net.Conn), closed: make(chan struct{}),
	}
	p.listeners[string(l.addr)] = l
	return l
}

func (p *pipes) dial(ctx context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[address]
	p.mu.Unlock()
	if l == nil {
		return nil, net.ErrClosed
	}
	here, there := net.Pipe()
	select {
	case l.conns <- pipeConn{there}:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	addr   pipeAddr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

func (l *pipeListener) Addr() net.Addr { return l.addr }

type pipeAddr string

func (pipeAddr) Network() string  { return "tcp" }
func (a pipeAddr) String() string { return string(a) }

// pipeConn is a connection with a local address.
type pipeConn struct{ net.Conn }

func (pipeConn) RemoteAddr() net.Addr { return pipeAddr("127.0.0.1:9") }
