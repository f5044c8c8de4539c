// Package server runs the measured programs as subprocesses: a discharger with its
// Redis, and the references. [Service.Spent] and its like read their use of processor
// time, memory and store operations.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/keyfile"
)

// Store is a kind of store.
type Store string

// The stores.
const (
	Bolt  Store = "bolt"
	Redis Store = "redis"
)

// Service is a discharger with its store, in a directory of its own. Its
// configuration is the default but for longer timeouts: a pause of the machine
// shows in the latencies and does not end the run.
type Service struct {
	*process
	cfg    Config
	dir    string
	redis  *redisServer  // nil: the store is a file
	Ring   *keyfile.Ring // of the homeserver that bench is
	Client string        // host:port for clients
	Admin  string        // host:port for operators

	Gateway string // host:port for Matrix clients, if there is a gateway
}

// Config configures a [Service].
type Config struct {
	Program     string // file of the discharger
	Store       Store
	Procs       int    // processors to use; 0: all
	More        string // further lines of the configuration
	Upstream    string // URL of the homeserver behind the gateway; "": no gateway
	Homeservers int    // number of further registered homeservers
	Remove      string // a file to remove at the end; "": none
}

// HomeserverName is the name of the homeserver that bench is.
const HomeserverName = "bench.example.org"

// Start starts a service.
func Start(ctx context.Context, cfg Config) (s *Service, err error) {
	s = &Service{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "discharger-bench"); err != nil {
		return s, err
	}
	if cfg.Store == Redis {
		if s.redis, err = startRedis(ctx); err != nil {
			return s, err
		}
	}
	if err := s.configure(); err != nil {
		return s, err
	}
	return s, s.Restart(ctx)
}

// configure writes keys for both sides and the configuration.
func (s *Service) configure() error {
	keys, err := keyfile.NewService(time.Now())
	if err != nil {
		return err
	}
	if err := keyfile.Create(filepath.Join(s.dir, "keys.json"), keys); err != nil {
		return err
	}
	peer := keyfile.Peer{Name: HomeserverName, Service: "http://127.0.0.1", ServiceKey: keys.Of(keyfile.Discharger)[0].Public}
	if s.Ring, err = keyfile.NewHomeserver(peer, time.Now()); err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\ndata_dir: %q\n", s.dir)
	if s.redis != nil {
		fmt.Fprintf(&text, "store:\n  redis:\n    addresses: [%q]\n    timeouts: {dial: 10s, read: 10s, write: 10s}\n", s.redis.socket)
	}
	fmt.Fprintf(&text, "request_timeout: 10s\nlog:\n  format: json\nhomeservers:\n")
	entry := func(name string, ring *keyfile.Ring) {
		fmt.Fprintf(&text, "  - name: %q\n    public_key: %s\n    api_key_sha256: %x\n",
			name, ring.Of(keyfile.Seal)[0].Public, ring.Of(keyfile.API)[0].APIDigest())
	}
	entry(HomeserverName, s.Ring)
	for i := range s.cfg.Homeservers {
		other, err := keyfile.NewHomeserver(peer, time.Now())
		if err != nil {
			return err
		}
		entry(fmt.Sprintf("%d.example.org", i), other)
	}
	if s.cfg.Upstream != "" {
		gateway := keyfile.Peer{Name: "gateway", Service: peer.Service, ServiceKey: peer.ServiceKey}
		ring, err := keyfile.NewHomeserver(gateway, time.Now())
		if err != nil {
			return err
		}
		if err := keyfile.Create(filepath.Join(s.dir, "gateway.json"), ring); err != nil {
			return err
		}
		fmt.Fprintf(&text, "gateway:\n  listen: 127.0.0.1:0\n  upstream: %q\n", s.cfg.Upstream)
	}
	return os.WriteFile(s.configFile(), []byte(text.String()+s.cfg.More), 0o600)
}

func (s *Service) configFile() string { return filepath.Join(s.dir, "discharger.yaml") }

// Restart runs the program, after it has ended. The access log is written, as by
// default, and discarded.
func (s *Service) Restart(ctx context.Context) (err error) {
	s.Client, s.Admin, s.Gateway = "", "", ""
	cmd := exec.Command(s.cfg.Program, "serve", "--config", s.configFile())
	cmd.Env = environ(s.cfg.Procs)
	s.process, err = startProcess(ctx, cmd, false, func(line string) bool {
		var l struct{ Msg, Clients, Operators, Matrix string }
		if json.Unmarshal([]byte(line), &l) != nil {
			return false
		}
		switch l.Msg {
		case "gateway":
			s.Gateway = strings.TrimPrefix(l.Matrix, "http://")
		case "listening":
			s.Client, s.Admin = strings.TrimPrefix(l.Clients, "http://"), strings.TrimPrefix(l.Operators, "http://")
		}
		return s.Client != "" && (s.Gateway != "") == (s.cfg.Upstream != "")
	})
	return err
}

// environ returns the environment of a measured process: that of this program
// without the variables that configure a discharger or the Go runtime.
func environ(procs int) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DISCHARGER_") && !strings.HasPrefix(v, "GO") {
			env = append(env, v)
		}
	}
	if procs > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", procs))
	}
	return env
}

// Stop ends the service and its Redis, and removes their files.
func (s *Service) Stop() error {
	var err error
	if s.process != nil {
		err = s.End()
	}
	if s.redis != nil {
		err = errors.Join(err, s.redis.stop())
	}
	if s.cfg.Remove != "" {
		err = errors.Join(err, os.Remove(s.cfg.Remove))
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// StoreSize returns the size of the store, in bytes: memory of Redis, or of the
// file.
func (s *Service) StoreSize() (int64, error) {
	if s.redis != nil {
		return s.redis.memory()
	}
	info, err := os.Stat(filepath.Join(s.dir, "sessions.db"))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
