package httpd

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

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
