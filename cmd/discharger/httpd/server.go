// Package httpd serves HTTP at ports that this process opened or that a service
// manager handed over, without dropping a request at the end of the process.
//
// A [Port] is one socket or several. A [Server] answers there; its connections are
// bounded, and idle ones make room for new ones. [Sockets] are the sockets of
// systemd's socket activation, and a [Manager] notifies systemd of the process's
// state.
package httpd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// adminTimeout is how long a request of an operator may take at the end.
const adminTimeout = 2 * time.Second

// endAdmin stops taking requests of operators. One that takes its time is cut: the
// process has nothing else to do.
func EndAdmin(w *Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil {
		return w.Close()
	}
	return nil
}

// web answers requests at a port. Its shutdown drops no request of a connection
// that has been accepted: [http.Server.Shutdown] closes a connection whose first
// request arrives meanwhile without an answer, and waits 5 s for one that sends
// none.
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

// connection is one that was accepted. It is fresh until its first request is with the handler.
type connection struct {
	conn  net.Conn
	known atomic.Bool
}

// newWeb makes a server answer at a port.
func New(p Port, s *http.Server) *Server {
	w := &Server{port: p, http: s, handler: s.Handler, connections: newConnections(s.ErrorLog), fresh: make(map[net.Conn]*connection)}
	s.Handler, s.ConnState, s.ConnContext = w, w.state, w.welcome
	return w
}

// serve begins to answer. The first error that ends it goes to failed, which has
// room for one.
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

// welcome notes a connection.
func (w *Server) welcome(ctx context.Context, c net.Conn) context.Context {
	v := &connection{conn: c}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh[c] = v
	return context.WithValue(ctx, connectionKey{}, v)
}

// state forgets a connection that ends, or is another protocol's.
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

// freshTimeout is how long a connection may take for its first request at the end.
const freshTimeout = time.Second

// shutdown takes no more connections and returns when all requests are answered,
// or with an error when ctx ends.
func (w *Server) Shutdown(ctx context.Context) error {
	w.closing.Store(true)
	_ = w.port.Close() // a socket that has failed may be closed already
	w.serving.Wait()   // connections that were accepted are noted
	w.http.SetKeepAlivesEnabled(false)
	w.awaitFresh(ctx)
	if err := w.http.Shutdown(ctx); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// awaitFresh waits for the first request of every connection, but not for long, and
// closes those that have sent none.
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

// close ends requests without an answer.
func (w *Server) Close() error {
	w.closing.Store(true)
	return w.http.Close()
}
