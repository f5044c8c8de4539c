package measure

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// kind is what a request asks for.
type kind uint8

const (
	kindDischarge kind = iota // of a session that is there
	kindActivate              // the first one of a session
	kindLogout
	kindReuse // of a refresh token that someone has used before, to be refused
	kinds
)

var kindNames = [kinds]string{"discharge", "activate", "logout", "reuse"}

// player is what goes over one connection.
type player interface {
	// next appends the next request, and says what it is.
	next(b []byte) ([]byte, kind, error)
	// answered takes the answer to it. An error ends the run.
	answered(status int, body []byte) error
}

// Load is how requests are sent.
type Load struct {
	Connections int
	Rate        float64 // a second, over all connections; 0: closed loop
	For         time.Duration
}

// client is the connections to one server with their players, which go on from
// round to round. They are made for the first round, since a server does not
// wait long for the first request of a connection, and there is much to prepare.
type client struct {
	addr    string
	conns   []*conn
	players []player
}

func newClient(addr string, connections int, player func(i int) (player, error)) (*client, error) {
	c := &client{addr: addr}
	for i := range connections {
		p, err := player(i)
		if err != nil {
			return nil, err
		}
		c.players = append(c.players, p)
	}
	return c, nil
}

// connect makes the connections that are not there yet.
func (c *client) connect(ctx context.Context) error {
	for len(c.conns) < len(c.players) {
		cn, err := dial(ctx, c.addr)
		if err != nil {
			return err
		}
		c.conns = append(c.conns, cn)
	}
	return nil
}

func (c *client) close() error {
	for _, cn := range c.conns {
		cn.close()
	}
	return nil
}

// tally is what came of a load.
type tally struct {
	by    [kinds]Histogram
	wall  time.Duration
	limit error // of the first player that could not go on
}

func (t *tally) requests() (n uint64) {
	for i := range t.by {
		n += t.by[i].Count()
	}
	return n
}

// all is the latencies of all kinds.
func (t *tally) all() *Histogram {
	all := new(Histogram)
	for i := range t.by {
		all.Merge(&t.by[i])
	}
	return all
}

// run sends for as long as the load says.
func (c *client) run(ctx context.Context, l Load) (*tally, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	stop := start.Add(l.For)
	for _, cn := range c.conns {
		if err := cn.expire(stop.Add(slow)); err != nil {
			return nil, err
		}
	}
	var due chan time.Time
	if l.Rate > 0 {
		due = make(chan time.Time, int(l.Rate*l.For.Seconds()*2)+1000) // never in the way
		go schedule(ctx, due, start, stop, l.Rate)
	}
	tallies := make([]tally, len(c.conns))
	var wg sync.WaitGroup
	var failed atomic.Bool
	for i, cn := range c.conns {
		wg.Go(func() {
			t := &tallies[i]
			if t.limit = drive(ctx, cn, c.players[i], due, stop, t); t.limit != nil && failed.CompareAndSwap(false, true) {
				cancel()
			}
		})
	}
	wg.Wait()
	sum := &tally{wall: time.Since(start)}
	for i := range tallies {
		for k := range sum.by {
			sum.by[k].Merge(&tallies[i].by[k])
		}
		if sum.limit == nil {
			sum.limit = tallies[i].limit
		}
	}
	return sum, sum.limit
}

// drive sends the requests of one connection, at least one. With due it sends when
// one is.
func drive(ctx context.Context, cn *conn, p player, due <-chan time.Time, stop time.Time, t *tally) error {
	buf := make([]byte, 0, 2<<10)
	from := time.Now()
	for first := true; ctx.Err() == nil && (first || from.Before(stop)); first = false {
		if due != nil {
			var ok bool
			if from, ok = <-due; !ok {
				return nil
			}
		}
		var k kind
		var err error
		if buf, k, err = p.next(buf[:0]); err != nil {
			return err
		}
		status, body, err := cn.do(buf)
		if err != nil {
			return fmt.Errorf("%s: %w", kindNames[k], err)
		}
		now := time.Now()
		t.by[k].Add(now.Sub(from))
		if err := p.answered(status, body); err != nil {
			return fmt.Errorf("%s: %w", kindNames[k], err)
		}
		from = now
	}
	return ctx.Err()
}

// schedule says when requests are due, as if each came from someone who knows
// nothing of the others. What is due and late is still sent.
func schedule(ctx context.Context, due chan<- time.Time, start, stop time.Time, rate float64) {
	defer close(due)
	random := rand.New(rand.NewPCG(1, uint64(start.UnixNano())))
	for at := start; ; {
		at = at.Add(time.Duration(random.ExpFloat64() * float64(time.Second) / rate))
		if !at.Before(stop) || ctx.Err() != nil {
			return
		}
		pause(time.Until(at))
		due <- at
	}
}
