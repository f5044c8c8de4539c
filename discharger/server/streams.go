package server

import (
	"context"
	"net/http"
	"sync"
)

// Streams are the open streams of feeds and their hubs. Servers that succeed one
// another, as after a reload, share them, so that the streams continue.
type Streams struct {
	mu       sync.Mutex
	hubs     map[string]*hub // by homeserver
	open     map[*subscriber]struct{}
	current  *Server // whose settings count
	draining bool
}

// NewStreams returns Streams for one server and its successors.
func NewStreams() *Streams {
	return &Streams{hubs: make(map[string]*hub), open: make(map[*subscriber]struct{})}
}

// begin makes s the current server if there is none yet.
func (st *Streams) begin(s *Server) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.current == nil {
		st.current = s
	}
}

// Succeed makes s the current server, whose settings apply to the shared streams.
// Streams with another heartbeat, or with an API key that is not registered at s, end;
// their readers reconnect to s.
func (s *Server) Succeed() {
	st := s.cfg.Feed.Streams
	st.mu.Lock()
	defer st.mu.Unlock()
	st.current = s
	for u := range st.open {
		if !s.continues(u.s, u.hub.homeserver, u.header) {
			u.stop()
		}
	}
}

// continues reports whether a stream that began at another server continues at s.
func (s *Server) continues(began *Server, homeserver string, header http.Header) bool {
	name, err := s.keys.authenticate(header)
	return err == nil && name == homeserver && s.cfg.Feed.Heartbeat == began.cfg.Feed.Heartbeat
}

// enter adds a stream of a homeserver, which stop ends. header is that of its request.
func (st *Streams) enter(s *Server, homeserver string, header http.Header, stop func()) (*subscriber, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	h := st.hubs[homeserver]
	switch {
	case st.draining:
		return nil, errDraining
	case h != nil && h.subscribers >= st.current.cfg.Feed.Subscribers:
		return nil, errSubscribers
	case st.current != s && !st.current.continues(s, homeserver, header):
		return nil, errDraining // another has succeeded since the request came
	case h == nil:
		ctx, cancel := context.WithCancel(context.Background())
		h = &hub{
			source: s.cfg.Feed.Source, homeserver: homeserver, now: s.cfg.now, metrics: s.cfg.Metrics,
			ctx: ctx, stop: cancel, index: make(map[string]uint64), wake: make(chan struct{}), readAt: s.cfg.now(),
		}
		st.hubs[homeserver] = h
	}
	u := &subscriber{s: s, hub: h, header: header, stop: stop}
	st.open[u] = struct{}{}
	h.subscribers++
	h.metrics.feedStreams.WithLabelValues(homeserver).Inc()
	return u, nil
}

// leave removes a stream, and stops the hub after the last one.
func (st *Streams) leave(u *subscriber) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.open, u)
	h := u.hub
	h.metrics.feedStreams.WithLabelValues(h.homeserver).Dec()
	if h.subscribers--; h.subscribers == 0 {
		h.stop()
		delete(st.hubs, h.homeserver)
	}
}

// drain ends all streams and refuses new ones.
func (st *Streams) drain() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.draining = true
	for u := range st.open {
		u.stop()
	}
}
