package testkit

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
)

// Pipes replace the network under testing/synctest: a goroutine that waits for a pipe
// waits for another goroutine of the bubble. Nil Pipes are the network.
type Pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	client    *http.Transport
}

// NewPipes returns pipes without a listener.
func NewPipes() *Pipes {
	p := &Pipes{listeners: make(map[string]*pipeListener)}
	p.client = &http.Transport{DialContext: p.Dial, MaxIdleConnsPerHost: 1024}
	return p
}

// Serve starts a server.
func (p *Pipes) Serve(h http.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	if p != nil {
		_ = s.Listener.Close()
		s.Listener = p.Listen()
	}
	s.Start()
	return s
}

// Transport returns the transport of a client of the servers.
func (p *Pipes) Transport() *http.Transport {
	if p == nil {
		return http.DefaultTransport.(*http.Transport)
	}
	return p.client
}

// Listen returns a listener with an address of its own.
func (p *Pipes) Listen() net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &pipeListener{addr: loopback(len(p.listeners) + 1), conns: make(chan net.Conn), closed: make(chan struct{})}
	p.listeners[l.addr.String()] = l
	return l
}

// Dial connects to a listener, with the signature of [net.Dialer.DialContext]. A closed
// or unknown one refuses the connection.
func (p *Pipes) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[address]
	p.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	here, there := net.Pipe()
	select {
	case l.conns <- pipeConn{there}:
		return here, nil
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	addr   net.Addr
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

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return l.addr }

// pipeConn is a connection with a local address.
type pipeConn struct{ net.Conn }

func (pipeConn) RemoteAddr() net.Addr { return loopback(9) }

func loopback(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
