package httpd

import (
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
// restart refuses no connection: what arrives between two processes waits in the
// sockets' queues. It hands them over by the protocol of sd_listen_fds(3), each
// under a name (FileDescriptorName=), and is notified by that of sd_notify(3).

// The names of sockets.
const (
	SocketClient  = "client"  // in the place of listen
	SocketAdmin   = "admin"   // of admin_listen
	SocketGateway = "gateway" // of gateway.listen
)

// sockets are the listening sockets that were handed over, by name.
type Sockets struct {
	named map[string]Port
	log   *slog.Logger
}

// inheritSockets takes the sockets over. One that the process has no use for is an
// error: nothing would answer there.
func Inherit(log *slog.Logger, names ...string) (*Sockets, error) {
	s := &Sockets{named: make(map[string]Port), log: log}
	for _, f := range activation.Files(true) {
		name := f.Name()
		l, err := net.FileListener(f)
		if err == nil {
			err = closeCopy(f, l)
		}
		switch {
		case err != nil:
			err = fmt.Errorf("cannot be used: %w", err)
		case !slices.Contains(names, name):
			err = fmt.Errorf("has no use here, want FileDescriptorName to be one of %s", strings.Join(names, ", "))
		case l.Addr().Network() != "tcp":
			err = fmt.Errorf("is of %s, want tcp", l.Addr().Network())
		default:
			s.named[name] = append(s.named[name], l)
			continue
		}
		return nil, command.Mark(fmt.Errorf("socket %q from the service manager %w", name, err), command.ErrConfig)
	}
	return s, nil
}

// closeCopy closes a socket of which a listener has a copy.
func closeCopy(f *os.File, l net.Listener) error {
	err := f.Close()
	if err != nil {
		_ = l.Close() // it is not used
	}
	return err
}

// of returns the socket of a name, if it was handed over for an address.
func (s *Sockets) of(name, address string) (Port, bool) {
	if s == nil {
		return nil, false
	}
	p, ok := s.named[name]
	if ok && !slices.ContainsFunc(p, func(l net.Listener) bool { return Dialable(l.Addr().String()) == Dialable(address) }) {
		s.log.Warn("socket of the service manager is at another address than the configuration has",
			slog.String("socket", name), slog.String("address", p.Addr().String()), slog.String("configured", address))
	}
	return p, ok
}

// manager notifies the service manager of the life of the process, if NOTIFY_SOCKET
// names one.
type Manager struct{ Log *slog.Logger }

// ready notifies it that requests are answered.
func (m Manager) Ready() { m.notify(sd.SdNotifyReady) }

// reloading is followed by ready, whatever comes of the reload.
func (m Manager) Reloading() {
	m.notify(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
}

func (m Manager) Stopping() { m.notify(sd.SdNotifyStopping) }

func (m Manager) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		m.Log.Warn("service manager could not be notified", slog.String("state", state), slog.Any("error", err))
	}
}
