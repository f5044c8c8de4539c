package main

import (
	"context"
	"errors"
	"net"
)

// port is where requests of one kind arrive: one socket, or several that a service
// manager handed over under one name.
type port []net.Listener

// openPort takes over the socket of a name, or listens at an address.
func openPort(ctx context.Context, s *sockets, name, address string) (port, error) {
	if p, ok := s.of(name, address); ok {
		return p, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return port{l}, nil
}

// Addr returns the first address.
func (p port) Addr() net.Addr { return p[0].Addr() }

// Close closes all sockets.
func (p port) Close() error {
	var errs []error
	for _, l := range p {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
