package measure

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

// Store says where a service keeps its sessions.
type Store string

// The stores.
const (
	Bolt  Store = "bolt"
	Redis Store = "redis"
)

// service is a service of our own: the program itself, with a store, in a
// directory of its own, configured as it is by default but for its patience: a
// pause of the machine shows in the latencies, and does not end the run.
type service struct {
	*process
	cfg    serviceConfig
	dir    string
	redis  *redisServer // nil: the store is a file
	ring   *keyfile.Ring
	client string // host:port for clients
	admin  string // and for operators

	gateway string // and for Matrix clients, if there is a gateway
}

// serviceConfig is what a service is started with.
type serviceConfig struct {
	program     string // file of the discharger
	store       Store
	procs       int    // processors to use; 0: all
	more        string // further lines of the configuration
	upstream    string // URL of the homeserver behind the gateway; "": there is no gateway
	homeservers int    // further ones that are registered
	remove      string // a file to remove at the end; "": none
}

const homeserverName = "bench.example.org"

func startService(ctx context.Context, cfg serviceConfig) (s *service, err error) {
	s = &service{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if s.dir, err = os.MkdirTemp("", "discharger-bench"); err != nil {
		return s, err
	}
	if cfg.store == Redis {
		if s.redis, err = startRedis(ctx); err != nil {
			return s, err
		}
	}
	if err := s.configure(); err != nil {
		return s, err
	}
	return s, s.start(ctx)
}

// configure makes keys for both sides, and the configuration.
func (s *service) configure() error {
	keys, err := keyfile.NewService(time.Now(), nil)
	if err != nil {
		return err
	}
	if err := keyfile.Create(filepath.Join(s.dir, "keys.json"), keys); err != nil {
		return err
	}
	peer := keyfile.Peer{Name: homeserverName, Service: "http://127.0.0.1", ServiceKey: keys.Of(keyfile.Discharger)[0].Public}
	if s.ring, err = keyfile.NewHomeserver(peer, time.Now(), nil); err != nil {
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
	entry(homeserverName, s.ring)
	for i := range s.cfg.homeservers {
		other, err := keyfile.NewHomeserver(peer, time.Now(), nil)
		if err != nil {
			return err
		}
		entry(fmt.Sprintf("%d.example.org", i), other)
	}
	if s.cfg.upstream != "" {
		gateway := keyfile.Peer{Name: "gateway", Service: peer.Service, ServiceKey: peer.ServiceKey}
		ring, err := keyfile.NewHomeserver(gateway, time.Now(), nil)
		if err != nil {
			return err
		}
		if err := keyfile.Create(filepath.Join(s.dir, "gateway.json"), ring); err != nil {
			return err
		}
		fmt.Fprintf(&text, "gateway:\n  listen: 127.0.0.1:0\n  upstream: %q\n", s.cfg.upstream)
	}
	return os.WriteFile(s.configFile(), []byte(text.String()+s.cfg.more), 0o600)
}

func (s *service) configFile() string { return filepath.Join(s.dir, "discharger.yaml") }

// start runs the program, and may be called again when it has ended. The access
// log is written as it is by default, and thrown away.
func (s *service) start(ctx context.Context) (err error) {
	s.client, s.admin, s.gateway = "", "", ""
	cmd := exec.Command(s.cfg.program, "serve", "--config", s.configFile())
	cmd.Env = environ(s.cfg.procs)
	s.process, err = startProcess(ctx, cmd, false, func(line string) bool {
		var l struct{ Msg, Clients, Operators, Matrix string }
		if json.Unmarshal([]byte(line), &l) != nil {
			return false
		}
		switch l.Msg {
		case "gateway":
			s.gateway = strings.TrimPrefix(l.Matrix, "http://")
		case "listening":
			s.client, s.admin = strings.TrimPrefix(l.Clients, "http://"), strings.TrimPrefix(l.Operators, "http://")
		}
		return s.client != "" && (s.gateway != "") == (s.cfg.upstream != "")
	})
	return err
}

// environ is the environment of what is measured: ours, but for what would
// configure a service or its runtime otherwise.
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

// stop ends everything and leaves nothing behind.
func (s *service) stop() error {
	var err error
	if s.process != nil {
		err = s.end()
	}
	if s.redis != nil {
		err = errors.Join(err, s.redis.stop())
	}
	if s.cfg.remove != "" {
		err = errors.Join(err, os.Remove(s.cfg.remove))
	}
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}
