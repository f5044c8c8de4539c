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

	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/keyfile"
)

// Workload says what is asked of the service.
type Workload string

// The workloads.
const (
	Open   Workload = "open"   // discharges of sessions that need nothing but the caveat
	Rotate Workload = "rotate" // refreshes with refresh tokens
	Held   Workload = "held"   // discharges that a homeserver fetches with its API key
	Logout Workload = "logout" // sessions that begin and end
	Mix    Workload = "mix"    // what many sessions do in a day

	Gateway Workload = "gateway" // requests to a homeserver behind the gateway
	Verify  Workload = "verify"  // bundles, as a homeserver does, in this process
)

// Workloads lists them.
func Workloads() []Workload { return []Workload{Open, Rotate, Held, Logout, Mix, Gateway, Verify} }

// References lists what a run can be compared with.
func References() []reference.Kind {
	return []reference.Kind{reference.Bakery, reference.Echo, reference.NetHTTP, reference.Bbolt, reference.ReverseProxy, reference.Fosite}
}

// Config is one run. Self is required, and Program unless there is a URL; the zero value of the rest is the
// documented default.
type Config struct {
	Program  string   // file of the discharger
	Self     string   // file of this program, which runs the references
	Workload Workload // empty: Open
	Store    Store    // of a service of our own; empty: Bolt
	Procs    int      // processors that what is measured may use; 0: all
	Compare  []reference.Kind
	Load     Load // Connections 0: 64; For 0: 3 s
	Rounds   int  // 0: 3
	Sessions int  // 0: 1000
	PerUser  int  // sessions of each user; 0: 3

	// URL is where a service runs already; empty: one is started. Admin is
	// where its metrics are, and Keys are those of a homeserver that it knows.
	URL, Admin string
	Keys       *keyfile.Ring

	Progress io.Writer // nil: nowhere
}

func (c *Config) complete() error {
	c.Workload, c.Store = cmp.Or(c.Workload, Open), cmp.Or(c.Store, Bolt)
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
		return errors.New("no program")
	case !slices.Contains(Workloads(), c.Workload):
		return fmt.Errorf("there is no workload %q", c.Workload)
	case c.Store != Bolt && c.Store != Redis:
		return fmt.Errorf("there is no store %q", c.Store)
	case min(c.Load.Connections, c.Rounds, c.Sessions, c.PerUser) < 1 || c.Procs < 0 || c.Load.Rate < 0 || c.Load.For < 0:
		return errors.New("connections, rounds, sessions and sessions per user are 1 or more, and nothing is below 0")
	case c.URL != "" && c.Keys == nil:
		return errors.New("a service that runs already needs the keys of a homeserver that it knows")
	}
	for _, kind := range c.Compare {
		if !slices.Contains(References(), kind) {
			return fmt.Errorf("there is no reference %q", kind)
		}
	}
	return nil
}

// Run measures.
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

// run is the servers of one run. The first subject is the service.
type run struct {
	cfg      Config
	subjects []*subject
	remove   []string         // directories
	behind   *referenceServer // the gateway; nil: there is none
}

func (r *run) progress(format string, args ...any) {
	fmt.Fprintf(r.cfg.Progress, "\r\x1b[K"+format, args...)
}

func (r *run) stop() error {
	var err error
	for _, s := range r.subjects {
		err = errors.Join(err, s.stop())
	}
	if r.behind != nil {
		err = errors.Join(err, r.behind.stop())
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
	l, err := newLogins(ring, ring.Peer.ServiceKey, r.cfg.PerUser)
	if err != nil {
		return err
	}
	if s.client, err = newClient(addr, r.cfg.Load.Connections, r.player(l, r.cfg.Workload)); err != nil {
		return err
	}
	for _, kind := range r.cfg.Compare {
		if err := r.prepareReference(ctx, kind, addr, l); err != nil {
			return err
		}
	}
	return nil
}

// target is the service that runs, or one of our own.
func (r *run) target(ctx context.Context, s *subject) (addr string, ring *keyfile.Ring, err error) {
	if r.cfg.URL == "" {
		own, err := startService(ctx, serviceConfig{program: r.cfg.Program, store: r.cfg.Store, procs: r.cfg.Procs})
		if err != nil {
			return "", nil, err
		}
		s.target = own
		return own.client, own.ring, nil
	}
	if addr, err = address(r.cfg.URL); err != nil {
		return "", nil, err
	}
	there := &remote{}
	if r.cfg.Admin != "" {
		if there.admin, err = address(r.cfg.Admin); err != nil {
			return "", nil, err
		}
	}
	s.target = there
	return addr, r.cfg.Keys, nil
}

// address is the host and port of a URL without TLS, which would be most of
// what is measured.
func address(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("%q is not http:// with a host and a port", text)
	}
	if u.Port() == "" {
		return net.JoinHostPort(u.Hostname(), "80"), nil
	}
	return u.Host, nil
}

// share is how many sessions each connection has.
func (r *run) share() int {
	return (r.cfg.Sessions + r.cfg.Load.Connections - 1) / r.cfg.Load.Connections
}

// player makes what goes over each connection.
func (r *run) player(l *logins, w Workload) func(i int) (player, error) {
	share := r.share()
	return func(i int) (player, error) {
		switch w {
		case Rotate:
			return l.refreshing(share)
		case Held:
			return l.again(share, caveat.ModeHeld)
		case Logout:
			return &leaving{logins: l}, nil
		case Mix:
			return l.newDay(share, uint64(i)), nil
		}
		return l.again(share, caveat.ModeOpen)
	}
}

// prepareReference starts a reference. It gets the requests that the service
// gets, and answers with as much.
func (r *run) prepareReference(ctx context.Context, kind reference.Kind, addr string, l *logins) error {
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
	ref, err := startReference(ctx, r.cfg.Self, r.cfg.Procs, spec)
	if err != nil {
		return err
	}
	s := &subject{name: string(kind), target: ref}
	r.subjects = append(r.subjects, s)
	if kind == reference.Bakery {
		key, err := caveat.ParsePublicKey(ref.hello.PublicKey)
		if err != nil {
			return err
		}
		if l, err = l.elsewhere(key, r.cfg.PerUser); err != nil {
			return err
		}
	}
	s.client, err = newClient(ref.hello.Addr, r.cfg.Load.Connections, r.player(l, Open))
	return err
}

// answer is one that the service gives to a request for a discharge.
func answer(ctx context.Context, addr string, l *logins) ([]byte, error) {
	s, err := l.new(caveat.ModeOpen)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	status, body, err := c.do(l.appendDischarge(nil, s, ""))
	if err != nil {
		return nil, err
	}
	return body, expect(200, status, body)
}
