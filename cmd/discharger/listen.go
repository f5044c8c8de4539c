package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/server"
)

// listeners are the two open ports and what answers there.
type listeners struct {
	client, operators port
	current           atomic.Pointer[server.Server] // replaced by a reload
	admin             *http.ServeMux                // what operators reach
	clientWeb         *web
	adminWeb          *web
	failed            chan error // of serving, that of a gateway included
}

// listen opens both ports, or takes them over. Nothing is answered before
// [listeners.serve].
func listen(ctx context.Context, cfg *config.Config, s *sockets) (*listeners, error) {
	client, err := openPort(ctx, s, socketClient, cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	operators, err := openPort(ctx, s, socketAdmin, cfg.AdminListen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for operators: %w", err), client.Close())
	}
	return &listeners{client: client, operators: operators, admin: http.NewServeMux(), failed: make(chan error, 1)}, nil
}

// serve begins to answer.
func (l *listeners) serve(s *server.Server, log *slog.Logger) {
	l.current.Store(s)
	l.clientWeb = newWeb(l.client, server.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.current.Load().Client().ServeHTTP(w, r)
	}), log))
	l.admin.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { l.current.Load().Admin().ServeHTTP(w, r) })
	l.adminWeb = newWeb(l.operators, server.HTTPServer(l.admin, log))
	l.clientWeb.serve(l.failed)
	l.adminWeb.serve(l.failed)
}

// url is where clients reach the service: as configured, or the bound address.
func (l *listeners) url(cfg *config.Config) string {
	if cfg.PublicURL != "" {
		return cfg.PublicURL
	}
	return "http://" + dialable(l.client.Addr().String())
}

// shutdown stops taking requests, and waits for those under way. /readyz is 503
// from the beginning, and answers until the last request is done.
func (l *listeners) shutdown(timeout time.Duration) error {
	l.current.Load().Drain()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := l.clientWeb.shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("requests did not finish in %v: %w", timeout, err), l.clientWeb.close())
	}
	return errors.Join(err, endAdmin(l.adminWeb))
}

// adminTimeout is how long a request of an operator may take at the end.
const adminTimeout = 2 * time.Second

// endAdmin stops taking requests of operators. One that takes its time is cut: the
// process has nothing else to do.
func endAdmin(w *web) error {
	ctx, cancel := context.WithTimeout(context.Background(), adminTimeout)
	defer cancel()
	if err := w.shutdown(ctx); err != nil {
		return w.close()
	}
	return nil
}
