package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/discharger/discharger/cmd/discharger/command"
)

// A service manager such as systemd can hold the listening sockets, so that a
// restart refuses no connection: requests that arrive between two processes wait in the
// queues of the sockets. It hands them over by the protocol of sd_listen_fds(3), each
// under a name (FileDescriptorName=), and is notified by that of sd_notify(3).

// The names of sockets.
const (
	SocketClient  = "client"  // in the place of listen
	SocketAdmin   = "admin"   // of admin_listen
	SocketGateway = "gateway" // of gateway.listen
)

// Sockets are the listening sockets that were handed over, by name.
type Sockets struct {
	named map[string]Port
	log   *slog.Logger
}

// Inherit takes over the sockets of the given names. A socket of another name is an
// error, since nothing would answer there.
func Inherit(log *slog.Logger, names ...string) (*Sockets, error) {
	s := &Sockets{named: make(map[string]Port), log: log}
	for _, f := range activation.Files(true) {
		name := f.Name()
		l, err := net.FileListener(f)
		err = errors.Join(err, f.Close()) // the listener has a copy
		switch {
		case err != nil:
			err = fmt.Errorf("is unusable: %w", err)
		case !slices.Contains(names, name):
			err = fmt.Errorf("is unknown; FileDescriptorName is one of %s", strings.Join(names, ", "))
		case l.Addr().Network() != "tcp":
			err = fmt.Errorf("has network %s instead of tcp", l.Addr().Network())
		default:
			s.named[name] = append(s.named[name], l)
			continue
		}
		return nil, command.Mark(fmt.Errorf("socket %q from the service manager %w", name, err), command.ErrConfig)
	}
	return s, nil
}

// of returns the socket of a name, if it was handed over for an address.
func (s *Sockets) of(name, address string) (Port, bool) {
	if s == nil {
		return nil, false
	}
	p, ok := s.named[name]
	if ok && !slices.ContainsFunc(p, func(l net.Listener) bool { return Dialable(l.Addr().String()) == Dialable(address) }) {
		s.log.Warn("socket of the service manager differs from the configured address",
			slog.String("socket", name), slog.String("address", p.Addr().String()), slog.String("configured", address))
	}
	return p, ok
}

// Manager notifies the service manager of the state of the process, if NOTIFY_SOCKET
// is set.
type Manager struct{ Log *slog.Logger }

// Run reports readiness, reloads at every hangup, and returns when ctx ends, or with the
// error of failed.
func (m Manager) Run(ctx context.Context, failed <-chan error, hangup <-chan os.Signal, reload func() error) error {
	m.notify(sd.SdNotifyReady)
	defer m.notify(sd.SdNotifyStopping)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("serve: %w", err)
		case <-hangup:
			m.notify(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
			if err := reload(); err != nil {
				m.Log.Error("reload failed, keeping the configuration in force", slog.Any("error", err))
			}
			m.notify(sd.SdNotifyReady)
		}
	}
}

func (m Manager) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		m.Log.Warn("notifying the service manager failed", slog.String("state", state), slog.Any("error", err))
	}
}
