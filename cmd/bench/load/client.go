// Package load sends requests over persistent HTTP/1.1 connections and counts their
// latencies. A [Player] produces the requests of a connection; a [Client] sends them
// in a closed loop, or in an open one at a rate. It costs little processor time, so
// that a single core can keep a server busy.
package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Kind is the purpose of a request.
type Kind uint8

// The kinds.
const (
	Discharge Kind = iota // of an activated session
	Activate              // the first discharge of a session
	Logout
	Reuse // of a superseded refresh token, to be refused
	Kinds // the number of kinds
)

var kindNames = [Kinds]string{"discharge", "activate", "logout", "reuse"}

// String returns the name of a kind.
func (k Kind) String() string { return kindNames[k] }

// Player produces the requests of one connection, one at a time.
type Player interface {
	// Next appends the next request to b, and returns its kind.
	Next(b []byte) ([]byte, Kind, error)
	// Answered receives the answer to it. An error ends the run.
	Answered(status int, body []byte) error
}

// Load describes the sending of requests.
type Load struct {
	Connections int
	Rate        float64 // a second, over all connections; 0: closed loop
	For         time.Duration
}

// Client is a set of connections to one server with their players, kept from round
// to round. The first round opens them: preparation takes longer than a server
// waits for the first request of a connection.
type Client struct {
	addr    string
	conns   []*Conn
	players []Player
}

// NewClient returns a client of the server at host:port. The function player is
// called once for each connection.
func NewClient(addr string, connections int, player func(i int) (Player, error)) (*Client, error) {
	c := &Client{addr: addr}
	for i := range connections {
		p, err := player(i)
		if err != nil {
			return nil, err
		}
		c.players = append(c.players, p)
	}
	return c, nil
}

// connect opens the connections that are not open yet.
func (c *Client) connect(ctx context.Context) error {
	for len(c.conns) < len(c.players) {
		cn, err := Dial(ctx, c.addr)
		if err != nil {
			return err
		}
		c.conns = append(c.conns, cn)
	}
	return nil
}

// Close closes the connections.
func (c *Client) Close() {
	for _, cn := range c.conns {
		cn.Close()
	}
}

// Tally is the result of a load: latencies by kind of request.
type Tally struct {
	By   [Kinds]Histogram
	Wall time.Duration
}

// Requests returns the number of answered requests.
func (t *Tally) Requests() (n uint64) {
	for i := range t.By {
		n += t.By[i].Count()
	}
	return n
}

// All returns the latencies of all kinds.
func (t *Tally) All() *Histogram {
	all := new(Histogram)
	for i := range t.By {
		all.Merge(&t.By[i])
	}
	return all
}

// Run sends requests for the duration of the load. It returns the first error of
// a player, if any.
func (c *Client) Run(ctx context.Context, l Load) (*Tally, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	stop := start.Add(l.For)
	for _, cn := range c.conns {
		if err := cn.Expire(stop.Add(Timeout)); err != nil {
			return nil, err
		}
	}
	var due chan time.Time
	if l.Rate > 0 {
		due = make(chan time.Time, int(l.Rate*l.For.Seconds()*2)+1000) // never full
		go Schedule(ctx, due, start, stop, l.Rate)
	}
	tallies := make([]Tally, len(c.conns))
	var wg sync.WaitGroup
	for i, cn := range c.conns {
		wg.Go(func() {
			if err := drive(ctx, cn, c.players[i], due, stop, &tallies[i]); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	sum := &Tally{Wall: time.Since(start)}
	for i := range tallies {
		for k := range sum.By {
			sum.By[k].Merge(&tallies[i].By[k])
		}
	}
	return sum, context.Cause(ctx)
}

// drive sends the requests of one connection, at least one; in an open loop, it
// waits for the channel due before each.
func drive(ctx context.Context, cn *Conn, p Player, due <-chan time.Time, stop time.Time, t *Tally) error {
	buf := make([]byte, 0, 2<<10)
	from := time.Now()
	for first := true; ctx.Err() == nil && (first || from.Before(stop)); first = false {
		if due != nil {
			var ok bool
			if from, ok = <-due; !ok {
				return nil
			}
		}
		var k Kind
		var err error
		if buf, k, err = p.Next(buf[:0]); err != nil {
			return err
		}
		status, body, err := cn.Do(buf)
		if err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		now := time.Now()
		t.By[k].Add(now.Sub(from))
		if err := p.Answered(status, body); err != nil {
			return fmt.Errorf("%s: %w", k, err)
		}
		from = now
	}
	return ctx.Err()
}

// Schedule sends the times at which requests are due, as a Poisson process, and
// closes the channel at stop. Late requests are still due.
func Schedule(ctx context.Context, due chan<- time.Time, start, stop time.Time, rate float64) {
	defer close(due)
	random := rand.New(rand.NewPCG(1, uint64(start.UnixNano())))
	for at := start; ; {
		at = at.Add(time.Duration(random.ExpFloat64() * float64(time.Second) / rate))
		if !at.Before(stop) || ctx.Err() != nil {
			return
		}
		Pause(time.Until(at))
		due <- at
	}
}
