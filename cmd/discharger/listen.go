package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/server"
)

// listeners are the two open ports and what answers there.
type listeners struct {
	client, operators net.Listener
	current           atomic.Pointer[server.Server] // replaced by a reload
	admin             *http.ServeMux                // what operators reach
	clientHTTP        *http.Server
	adminHTTP         *http.Server
	failed            chan error // of serving; room for both, and for a gateway
}

// listen opens both ports. Nothing is answered before [listeners.serve].
func listen(ctx context.Context, cfg *config.Config) (*listeners, error) {
	var lc net.ListenConfig
	client, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	operators, err := lc.Listen(ctx, "tcp", cfg.AdminListen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for operators: %w", err), client.Close())
	}
	return &listeners{client: client, operators: operators, admin: http.NewServeMux(), failed: make(chan error, 3)}, nil
}

// serve begins to answer.
func (l *listeners) serve(s *server.Server, log *slog.Logger) {
	l.current.Store(s)
	l.clientHTTP = server.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.current.Load().Client().ServeHTTP(w, r)
	}), log)
	l.admin.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { l.current.Load().Admin().ServeHTTP(w, r) })
	l.adminHTTP = server.HTTPServer(l.admin, log)
	go func() { l.failed <- l.clientHTTP.Serve(l.client) }()
	go func() { l.failed <- l.adminHTTP.Serve(l.operators) }()
}

// url is where clients reach the service: as configured, or the bound address.
func (l *listeners) url(cfg *config.Config) string {
	if cfg.PublicURL != "" {
		return cfg.PublicURL
	}
	return "http://" + dialable(l.client.Addr().String())
}

// shutdown stops taking requests, and waits for those under way. /readyz says
// no from the beginning, and can be asked until the last request is done.
func (l *listeners) shutdown(timeout time.Duration) error {
	l.current.Load().Drain()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := l.clientHTTP.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests did not finish in %v: %w", timeout, err), l.clientHTTP.Close())
	}
	return errors.Join(err, l.adminHTTP.Close())
}
