package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// web answers requests at a port. Its shutdown drops no request of a connection
// that has been accepted: [http.Server.Shutdown] closes a connection whose first
// request arrives meanwhile without an answer, and waits 5 s for one that sends
// none.
type web struct {
	port    port
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
func newWeb(p port, s *http.Server) *web {
	w := &web{port: p, http: s, handler: s.Handler, connections: newConnections(s.ErrorLog), fresh: make(map[net.Conn]*connection)}
	s.Handler, s.ConnState, s.ConnContext = w, w.state, w.welcome
	return w
}

// serve begins to answer. The first error that ends it goes to failed, which has
// room for one.
func (w *web) serve(failed chan<- error) {
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
func (w *web) welcome(ctx context.Context, c net.Conn) context.Context {
	v := &connection{conn: c}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh[c] = v
	return context.WithValue(ctx, connectionKey{}, v)
}

// state forgets a connection that ends, or is another protocol's.
func (w *web) state(c net.Conn, s http.ConnState) {
	w.connections.state(c, s)
	if s == http.StateClosed || s == http.StateHijacked {
		w.forget(c)
	}
}

// ServeHTTP answers a request.
func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if v, ok := r.Context().Value(connectionKey{}).(*connection); ok && !v.known.Load() && v.known.CompareAndSwap(false, true) {
		w.forget(v.conn)
	}
	w.handler.ServeHTTP(out, r)
}

func (w *web) forget(c net.Conn) {
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
func (w *web) shutdown(ctx context.Context) error {
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
func (w *web) awaitFresh(ctx context.Context) {
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
func (w *web) close() error {
	w.closing.Store(true)
	return w.http.Close()
}
