// Package httpd serves HTTP at ports that this process opened or that a service
// manager handed over, without dropping a request at the end of the process.
//
// A [Port] is one socket or several. A [Server] answers there; its connections are
// bounded, and idle ones make room for new ones. [Sockets] are the sockets of systemd's
// socket activation, and a [Manager] notifies systemd of the process's state.
package httpd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
)

// adminTimeout bounds the requests of operators at the end of the process.
const adminTimeout = 2 * time.Second

// EndAdmin shuts down the server for operators, and cuts requests that take longer
// than [adminTimeout].
func EndAdmin(w *Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil {
		return w.Close()
	}
	return nil
}

// Server answers requests at a port. Its shutdown answers the requests of all accepted
// connections; [http.Server.Shutdown] alone closes a connection whose first request
// arrives meanwhile, and waits 5 s for one that sends none.
type Server struct {
	port    Port
	http    *http.Server
	handler http.Handler
	serving sync.WaitGroup
	closing atomic.Bool

	connections *connections

	mu    sync.Mutex
	fresh map[net.Conn]*connection
	none  chan struct{} // closed when fresh is empty; nil: nothing waits for that
}

// connection is an accepted connection. It is fresh until the handler has its first request.
type connection struct {
	conn  net.Conn
	known atomic.Bool
}

// New returns a server that answers at a port with the settings of s.
func New(p Port, s *http.Server) *Server {
	w := &Server{port: p, http: s, handler: s.Handler, connections: newConnections(s.ErrorLog), fresh: make(map[net.Conn]*connection)}
	s.Handler, s.ConnState, s.ConnContext = w, w.state, w.welcome
	return w
}

// Serve begins to answer, and returns. The first error that ends a listener goes to
// failed, which has room for one.
func (w *Server) Serve(failed chan<- error) {
	for _, l := range w.port {
		w.serving.Go(func() {
			err := w.http.Serve(l)
			if w.closing.Load() {
				return
			}
			select {
			case failed <- err:
			default: // it ends already
			}
		})
	}
}

type connectionKey struct{}

// welcome records an accepted connection.
func (w *Server) welcome(ctx context.Context, c net.Conn) context.Context {
	v := &connection{conn: c}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh[c] = v
	return context.WithValue(ctx, connectionKey{}, v)
}

// state forgets a connection that ends or changes its protocol.
func (w *Server) state(c net.Conn, s http.ConnState) {
	w.connections.state(c, s)
	if s == http.StateClosed || s == http.StateHijacked {
		w.forget(c)
	}
}

// ServeHTTP answers a request.
func (w *Server) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if v, ok := r.Context().Value(connectionKey{}).(*connection); ok && !v.known.Load() && v.known.CompareAndSwap(false, true) {
		w.forget(v.conn)
	}
	w.handler.ServeHTTP(out, r)
}

func (w *Server) forget(c net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.fresh, c)
	if w.none != nil && len(w.fresh) == 0 {
		close(w.none)
		w.none = nil
	}
}

// freshTimeout bounds the wait for the first request of a connection at the end.
const freshTimeout = time.Second

// Shutdown closes the port and returns when all requests are answered, or with an error
// when ctx ends.
func (w *Server) Shutdown(ctx context.Context) error {
	w.closing.Store(true)
	_ = w.port.Close() // a socket that has failed may be closed already
	w.serving.Wait()   // accepted connections are recorded
	w.http.SetKeepAlivesEnabled(false)
	w.awaitFresh(ctx)
	if err := w.http.Shutdown(ctx); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// awaitFresh waits up to [freshTimeout] for the first request of every connection, and
// closes the others.
func (w *Server) awaitFresh(ctx context.Context) {
	w.mu.Lock()
	none := make(chan struct{})
	if len(w.fresh) == 0 {
		close(none)
	} else {
		w.none = none
	}
	w.mu.Unlock()
	timer := time.NewTimer(freshTimeout)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.none = nil
	for c := range w.fresh {
		_ = c.Close() // its client comes back
	}
}

// Close ends requests without an answer.
func (w *Server) Close() error {
	w.closing.Store(true)
	return w.http.Close()
}

// Dialable returns the address at which this machine reaches a listener: the loopback
// for one on all interfaces.
func Dialable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Port is the socket of one kind of requests, or several that a service manager handed
// over under one name.
type Port []net.Listener

// Listen takes over the sockets of a name, or listens at an address.
func Listen(ctx context.Context, s *Sockets, name, address string) (Port, error) {
	if p, ok := s.of(name, address); ok {
		return p, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return Port{l}, nil
}

// Addr returns the first address.
func (p Port) Addr() net.Addr { return p[0].Addr() }

// Close closes all sockets.
func (p Port) Close() error {
	var errs []error
	for _, l := range p {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Fetch makes a request to the service's port for operators and writes the body of the
// answer to w. Every error matches [command.ErrUnavailable].
func Fetch(ctx context.Context, method, url, authorization string, w io.Writer) (err error) {
	defer func() { err = command.Mark(err, command.ErrUnavailable) }()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return fmt.Errorf("%s: %s: %s", url, resp.Status, command.Quoted(string(text)))
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}
