package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/cmd/bench/server"
	"github.com/discharger/discharger/cmd/bench/workload"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/keyfile"
)

// Workload is a mix of requests.
type Workload string

// The workloads.
const (
	Open   Workload = "open"   // discharges of sessions that need nothing but the caveat
	Rotate Workload = "rotate" // refreshes with refresh tokens
	Held   Workload = "held"   // discharges that a homeserver fetches with its API key
	Logout Workload = "logout" // activations, each followed by a logout
	Mix    Workload = "mix"    // a day of many sessions

	Gateway Workload = "gateway" // requests to a homeserver behind the gateway
	Verify  Workload = "verify"  // verification of bundles, in this process
)

// Workloads lists them.
func Workloads() []Workload { return []Workload{Open, Rotate, Held, Logout, Mix, Gateway, Verify} }

// References lists the references.
func References() []reference.Kind {
	return []reference.Kind{reference.Bakery, reference.Echo, reference.NetHTTP, reference.Bbolt, reference.ReverseProxy, reference.Fosite}
}

// Config configures one run. Self is required, and Program unless there is a URL; the zero value of the rest is the
// documented default.
type Config struct {
	Program  string       // file of the discharger
	Self     string       // file of this program, which runs the references
	Workload Workload     // empty: Open
	Store    server.Store // of the service that bench starts; empty: Bolt
	Procs    int          // processors of the measured process; 0: all
	Compare  []reference.Kind
	Load     load.Load // Connections 0: 64; For 0: 3 s
	Rounds   int       // 0: 3
	Sessions int       // 0: 1000
	PerUser  int       // sessions of each user; 0: 3

	// URL is that of a running service; empty: one is started. Admin is the URL
	// of its metrics, and Keys are those of a homeserver registered there.
	URL, Admin string
	Keys       *keyfile.Ring

	Progress io.Writer // nil: nowhere
}

func (c *Config) complete() error {
	c.Workload, c.Store = cmp.Or(c.Workload, Open), cmp.Or(c.Store, server.Bolt)
	c.Load.For = cmp.Or(c.Load.For, 3*time.Second)
	c.Load.Connections = cmp.Or(c.Load.Connections, 64)
	c.Rounds = cmp.Or(c.Rounds, 3)
	c.Sessions = cmp.Or(c.Sessions, 1000)
	c.PerUser = cmp.Or(c.PerUser, 3)
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	switch {
	case c.Program == "" && c.URL == "" || c.Self == "":
		return errors.New("no program to measure")
	case !slices.Contains(Workloads(), c.Workload):
		return fmt.Errorf("workload %q is unknown", c.Workload)
	case c.Store != server.Bolt && c.Store != server.Redis:
		return fmt.Errorf("store %q is unknown", c.Store)
	case min(c.Load.Connections, c.Rounds, c.Sessions, c.PerUser) < 1 || c.Procs < 0 || c.Load.Rate < 0 || c.Load.For < 0:
		return errors.New("connections, rounds, sessions and sessions per user must be 1 or more, other numbers 0 or more")
	case c.URL != "" && c.Keys == nil:
		return errors.New("a running service needs the keys of a registered homeserver")
	}
	for _, kind := range c.Compare {
		if !slices.Contains(References(), kind) {
			return fmt.Errorf("reference %q is unknown", kind)
		}
	}
	return nil
}

// Run measures one workload.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if cfg.Workload == Verify {
		return verify(ctx, cfg)
	}
	r := &run{cfg: cfg}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	warm := cfg.Load
	warm.For = min(warm.For, time.Second)
	for _, s := range r.subjects {
		r.progress("warming up %s", s.name)
		if _, err := s.measure(ctx, warm); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	report := newReport(cfg)
	for i := range cfg.Rounds {
		for _, s := range r.subjects {
			r.progress("round %d of %d: %s", i+1, cfg.Rounds, s.name)
			if err := s.round(ctx, cfg.Load); err != nil {
				return nil, err
			}
		}
	}
	r.progress("")
	report.finish(r.subjects)
	return report, nil
}

// run holds the servers of one run. The first subject is the service.
type run struct {
	cfg      Config
	subjects []*subject
	remove   []string          // directories
	behind   *server.Reference // the homeserver behind the gateway; nil: none
}

func (r *run) progress(format string, args ...any) {
	fmt.Fprintf(r.cfg.Progress, "\r\x1b[K"+format, args...)
}

func (r *run) stop() error {
	var err error
	for _, s := range r.subjects {
		err = errors.Join(err, s.Stop())
	}
	if r.behind != nil {
		err = errors.Join(err, r.behind.Stop())
	}
	for _, dir := range r.remove {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (r *run) prepare(ctx context.Context) error {
	if r.cfg.Workload == Gateway {
		return r.prepareGateway(ctx)
	}
	name := "discharger " + string(r.cfg.Workload)
	if r.cfg.URL == "" {
		name += " " + string(r.cfg.Store)
	}
	r.progress("starting %s", name)
	s := &subject{name: name}
	r.subjects = append(r.subjects, s)
	addr, ring, err := r.target(ctx, s)
	if err != nil {
		return err
	}
	l, err := workload.NewLogins(ring, ring.Peer.ServiceKey, r.cfg.PerUser)
	if err != nil {
		return err
	}
	if s.client, err = load.NewClient(addr, r.cfg.Load.Connections, r.player(l, r.cfg.Workload)); err != nil {
		return err
	}
	for _, kind := range r.cfg.Compare {
		if err := r.prepareReference(ctx, kind, addr, l); err != nil {
			return err
		}
	}
	return nil
}

// target returns the running service, or starts one.
func (r *run) target(ctx context.Context, s *subject) (addr string, ring *keyfile.Ring, err error) {
	if r.cfg.URL == "" {
		own, err := server.Start(ctx, server.Config{Program: r.cfg.Program, Store: r.cfg.Store, Procs: r.cfg.Procs})
		if err != nil {
			return "", nil, err
		}
		s.target = own
		return own.Client, own.Ring, nil
	}
	if addr, err = address(r.cfg.URL); err != nil {
		return "", nil, err
	}
	there := &server.Remote{}
	if r.cfg.Admin != "" {
		if there.Admin, err = address(r.cfg.Admin); err != nil {
			return "", nil, err
		}
	}
	s.target = there
	return addr, r.cfg.Keys, nil
}

// address returns the host and port of a URL. TLS is not supported: it would be most
// of the measured cost.
func address(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("url %q: want http:// with a host and a port", text)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "80"), nil
	}
	return u.Host, nil
}

// share returns the number of sessions of each connection.
func (r *run) share() int {
	return (r.cfg.Sessions + r.cfg.Load.Connections - 1) / r.cfg.Load.Connections
}

// player returns a function that makes the player of each connection.
func (r *run) player(l *workload.Logins, w Workload) func(i int) (load.Player, error) {
	share := r.share()
	return func(i int) (load.Player, error) {
		switch w {
		case Rotate:
			return l.Refresh(share)
		case Held:
			return l.Repeat(share, caveat.ModeHeld)
		case Logout:
			return &workload.LoginLogout{Logins: l}, nil
		case Mix:
			return l.NewDay(share, uint64(i)), nil
		}
		return l.Repeat(share, caveat.ModeOpen)
	}
}

// prepareReference starts a reference. It receives the same requests as the service
// and answers with as many bytes.
func (r *run) prepareReference(ctx context.Context, kind reference.Kind, addr string, l *workload.Logins) error {
	if kind == reference.ReverseProxy {
		return fmt.Errorf("only the workload %s is compared with %s", Gateway, kind)
	}
	if kind == reference.Fosite {
		return r.prepareFosite(ctx)
	}
	spec := reference.Spec{Kind: kind}
	if kind != reference.Bakery {
		var err error
		if spec.Body, err = answer(ctx, addr, l); err != nil {
			return err
		}
	}
	if kind == reference.Bbolt {
		var err error
		if spec.Dir, err = os.MkdirTemp("", "discharger-bench"); err != nil {
			return err
		}
		r.remove = append(r.remove, spec.Dir)
	}
	ref, err := server.StartReference(ctx, r.cfg.Self, r.cfg.Procs, spec)
	if err != nil {
		return err
	}
	s := &subject{name: string(kind), target: ref}
	r.subjects = append(r.subjects, s)
	if kind == reference.Bakery {
		key, err := caveat.ParsePublicKey(ref.Hello.PublicKey)
		if err != nil {
			return err
		}
		if l, err = l.At(key, r.cfg.PerUser); err != nil {
			return err
		}
	}
	s.client, err = load.NewClient(ref.Hello.Addr, r.cfg.Load.Connections, r.player(l, Open))
	return err
}

// answer returns an answer of the service to a request for a discharge.
func answer(ctx context.Context, addr string, l *workload.Logins) ([]byte, error) {
	s, err := l.New(caveat.ModeOpen)
	if err != nil {
		return nil, err
	}
	c, err := load.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	status, body, err := c.Do(l.AppendDischarge(nil, s, ""))
	if err != nil {
		return nil, err
	}
	return body, workload.Expect(200, status, body)
}
