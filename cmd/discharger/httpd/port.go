package httpd

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// dialable is where an address to listen at is reached from here: all
// interfaces are reached by the loopback too.
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

// port is where requests of one kind arrive: one socket, or several that a service
// manager handed over under one name.
type Port []net.Listener

// openPort takes over the socket of a name, or listens at an address.
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
