package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/cmd/bench/server"
	"github.com/discharger/discharger/cmd/bench/workload"
)

// SoakConfig is one run of [Soak]. Program is required.
type SoakConfig struct {
	Program  string
	Stores   []server.Store // nil: both, at the same time
	For      time.Duration  // 0: an hour
	Restart  time.Duration  // time between restarts; 0: 2 min
	Rate     float64        // requests a second to each service; 0: 200
	Sessions int            // of each service; 0: 2000
	Progress io.Writer      // nil: nowhere
}

// SoakReport is the result of a soak.
type SoakReport struct {
	Machine Machine    `json:"machine"`
	Busy    [2]string  `json:"load_average"`
	Soaked  []*Soaking `json:"stores"`
}

// Soaking is the result for one service. Pairs are of the first and the second half
// of the time: the largest value of memory and store, the medians over windows of
// latency.
type Soaking struct {
	Store    server.Store `json:"store"`
	Requests uint64       `json:"requests"`
	Sent     Kinds        `json:"sent"`
	Again    uint64       `json:"sent_again"` // for lack of a decided answer
	Ended    int          `json:"ended"`      // restarts with SIGTERM
	Killed   int          `json:"killed"`     // and with SIGKILL
	Longest  float64      `json:"longest_ms"` // until a request was answered, through a restart
	Memory   [2]int64     `json:"memory"`     // of the service
	Size     [2]int64     `json:"store_bytes"`
	P50      [2]Spread    `json:"p50_us"`
	P99      [2]Spread    `json:"p99_us"`

	windows []window
	tally   load.Tally
}

// window is a part of the time.
type window struct {
	memory, size int64
	p50, p99     float64
}

// Soak sends the requests of a day and restarts the service again and again, in turn
// with SIGTERM and SIGKILL. It fails if a session is refused wrongly, if a request
// is never answered, or if memory, store or latency grow.
func Soak(ctx context.Context, cfg SoakConfig) (*SoakReport, error) {
	if cfg.Stores == nil {
		cfg.Stores = []server.Store{server.Bolt, server.Redis}
	}
	cfg.For = cmp.Or(cfg.For, time.Hour)
	cfg.Restart = cmp.Or(cfg.Restart, 2*time.Minute)
	cfg.Rate = cmp.Or(cfg.Rate, 200)
	cfg.Sessions = cmp.Or(cfg.Sessions, 2000)
	if cfg.Progress == nil {
		cfg.Progress = io.Discard
	}
	report := &SoakReport{Machine: thisMachine()}
	report.Busy[0] = loadAverage()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, store := range cfg.Stores {
		s := &soaker{cfg: cfg, out: &Soaking{Store: store, Sent: make(Kinds)}}
		report.Soaked = append(report.Soaked, s.out)
		wg.Go(func() {
			if err := s.run(ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", store, err))
			}
		})
	}
	wg.Wait()
	report.Busy[1] = loadAverage()
	return report, context.Cause(ctx)
}

// soaker runs one service.
type soaker struct {
	cfg     SoakConfig
	out     *Soaking
	service *server.Service
	addr    atomic.Pointer[string] // of the service since its last restart

	mu     sync.Mutex
	recent load.Histogram // of requests of this window that were due after the last restart
	back   time.Time      // time of the last restart
}

const soakConnections = 16

func (s *soaker) run(ctx context.Context) (err error) {
	if s.service, err = server.Start(ctx, server.Config{Program: s.cfg.Program, Store: s.out.Store}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.service.Stop()) }()
	addr := s.service.Client // a copy: a restart overwrites it
	s.addr.Store(&addr)
	l, err := workload.NewLogins(s.service.Ring, s.service.Ring.Peer.ServiceKey, 3)
	if err != nil {
		return err
	}
	start := time.Now()
	stop := start.Add(s.cfg.For)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	due := make(chan time.Time, int(s.cfg.Rate*load.Timeout.Seconds())+1000)
	go load.Schedule(ctx, due, start, stop, s.cfg.Rate)
	var wg sync.WaitGroup
	for i := range soakConnections {
		day := l.NewDay((s.cfg.Sessions+soakConnections-1)/soakConnections, uint64(i))
		wg.Go(func() {
			if err := s.live(ctx, day, due); err != nil {
				cancel(err)
			}
		})
	}
	if err := s.watch(ctx, stop); err != nil {
		cancel(err)
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return s.judge()
}

// live sends due requests over one connection.
func (s *soaker) live(ctx context.Context, p load.Player, due <-chan time.Time) error {
	var c *load.Conn
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	var buf []byte
	for from := range due {
		var k load.Kind
		var err error
		if buf, k, err = p.Next(buf[:0]); err != nil {
			return err
		}
		status, body, err := s.insist(ctx, &c, buf)
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		if err := p.Answered(status, body); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		took := time.Since(from)
		s.mu.Lock()
		if !from.Before(s.back) {
			s.recent.Add(took)
		}
		s.out.tally.By[k].Add(took)
		s.mu.Unlock()
	}
	return ctx.Err()
}

// insist sends a request until the answer is a decision, as a client does.
func (s *soaker) insist(ctx context.Context, c **load.Conn, request []byte) (status int, body []byte, err error) {
	began := time.Now()
	for ctx.Err() == nil {
		if *c == nil {
			*c, err = load.Dial(ctx, *s.addr.Load())
		}
		if err == nil {
			if err = (*c).Expire(time.Now().Add(load.Timeout)); err == nil {
				status, body, err = (*c).Do(request)
			}
		}
		if err == nil && status < 500 {
			return status, body, nil
		}
		if err != nil && *c != nil {
			(*c).Close()
			*c = nil
		}
		if time.Since(began) > 2*load.Timeout {
			return status, body, fmt.Errorf("not answered for %v: status %d, %w", 2*load.Timeout, status, err)
		}
		err = nil
		atomic.AddUint64(&s.out.Again, 1)
		load.Pause(20 * time.Millisecond)
	}
	return 0, nil, ctx.Err()
}

// watch closes windows and restarts the service, each at its time.
func (s *soaker) watch(ctx context.Context, stop time.Time) error {
	every := max(s.cfg.For/20, time.Second)
	tick := time.NewTicker(every)
	defer tick.Stop()
	restart := time.Now().Add(s.cfg.Restart)
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if !now.Before(stop) {
				return nil
			}
			if err := s.look(); err != nil {
				return err
			}
			fmt.Fprintf(s.cfg.Progress, "\r\x1b[K%v to go", stop.Sub(now).Round(time.Second))
			if now.Before(restart) {
				continue
			}
			if err := s.restart(ctx); err != nil {
				return err
			}
			restart = time.Now().Add(s.cfg.Restart) // independent of the time of the restart
			tick.Reset(every)
		}
	}
}

// look closes a window.
func (s *soaker) look() error {
	u, err := s.service.Usage()
	if err != nil {
		return err
	}
	size, err := s.service.StoreSize()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recent.Count() > 0 {
		s.out.windows = append(s.out.windows, window{
			memory: u.Memory, size: size, p50: micros(s.recent.Quantile(.5)), p99: micros(s.recent.Quantile(.99)),
		})
	}
	s.recent = load.Histogram{}
	return nil
}

// restart ends the service and starts it again. Every second time it is killed:
// acknowledged writes must survive that.
func (s *soaker) restart(ctx context.Context) error {
	if s.out.Ended <= s.out.Killed {
		s.out.Ended++
		if err := s.service.End(); err != nil {
			return err
		}
	} else {
		s.out.Killed++
		if err := s.service.Kill(); err != nil {
			return err
		}
	}
	if err := s.service.Restart(ctx); err != nil {
		return err
	}
	addr := s.service.Client
	s.addr.Store(&addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent, s.back = load.Histogram{}, time.Now()
	return nil
}

// judge sums up, and returns an error if something grew.
func (s *soaker) judge() error {
	o := s.out
	if len(o.windows) < 4 {
		return fmt.Errorf("only %d windows with answers: too short to judge", len(o.windows))
	}
	half := len(o.windows) / 2
	for i, part := range [][]window{o.windows[:half], o.windows[half:]} {
		var p50, p99 []float64
		for _, w := range part {
			o.Memory[i], o.Size[i] = max(o.Memory[i], w.memory), max(o.Size[i], w.size)
			p50, p99 = append(p50, w.p50), append(p99, w.p99)
		}
		o.P50[i], o.P99[i] = spreadOf(p50), spreadOf(p99)
	}
	o.Requests, o.Longest = o.tally.Requests(), micros(o.tally.All().Max())/1000
	for k := range o.tally.By {
		o.Sent[load.Kind(k).String()] = o.tally.By[k].Count()
	}
	const megabyte = 1 << 20
	switch {
	case o.Memory[1] > o.Memory[0]*3/2+32*megabyte:
		return fmt.Errorf("memory grew from %d to %d bytes", o.Memory[0], o.Memory[1])
	case o.Size[1] > o.Size[0]*2+8*megabyte:
		return fmt.Errorf("the store grew from %d to %d bytes", o.Size[0], o.Size[1])
	case o.P50[1].Min > o.P50[0].Median*5+100_000:
		// The best window: other work on the machine slows some windows, growth
		// slows all of them.
		return fmt.Errorf("the median latency grew from %.0f to at least %.0f µs", o.P50[0].Median, o.P50[1].Min)
	}
	return nil
}

// WriteText writes a table.
func (r *SoakReport) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s; load average %s before, %s after\n\n", r.Machine, r.Busy[0], r.Busy[1])
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, o := range r.Soaked {
		fmt.Fprintf(t, "%s\t%d requests: %v\n", o.Store, o.Requests, map[string]uint64(o.Sent))
		fmt.Fprintf(t, "\t%d restarts, and %d crashes; %d requests sent again, the longest answered after %.0f ms\n",
			o.Ended, o.Killed, o.Again, o.Longest)
		fmt.Fprintf(t, "\tfirst half\tsecond half\n")
		fmt.Fprintf(t, "memory, at most\t%.1f MB\t%.1f MB\n", float64(o.Memory[0])/1e6, float64(o.Memory[1])/1e6)
		fmt.Fprintf(t, "store, at most\t%.1f MB\t%.1f MB\n", float64(o.Size[0])/1e6, float64(o.Size[1])/1e6)
		fmt.Fprintf(t, "p50\t%v µs\t%v µs\n", o.P50[0], o.P50[1])
		fmt.Fprintf(t, "p99\t%v µs\t%v µs\n\n", o.P99[0], o.P99[1])
	}
	return t.Flush()
}
