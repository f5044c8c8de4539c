package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// With [Config.AwaitServers], a store whose servers are not usable yet is pending:
// every method returns an error, nothing is journaled, and the store tries to open
// every second. The try that succeeds checks identity, losses and journal before
// any other method does. Wrong credentials and unsuitable servers are retried as
// well: both are corrected at the servers while the service runs.

const (
	openFirst = 5 * time.Second        // that Open waits for the first try
	openTry   = replayTimeout          // of one try, with the replay of the journal
	openRetry = 500 * time.Millisecond // first pause between two tries
	openLog   = time.Minute            // between two lines about one problem
)

// pending is the state of a store that waits for its servers.
type pending struct {
	is     atomic.Bool // false: the store is open
	mu     sync.Mutex
	err    error // why the servers are unusable; nil: the store is open
	accept bool  // a loss of data is accepted once the store is open

	logged   string // problem that was logged last
	loggedAt time.Time
}

// errNotTried is the problem before the first try has ended.
var errNotTried = errors.New("servers have not answered yet")

// opened returns nil if the store is open, and otherwise the reason.
func (r *Store) opened() error {
	if !r.pending.is.Load() {
		return nil
	}
	r.pending.mu.Lock()
	defer r.pending.mu.Unlock()
	if r.pending.err != nil {
		return fmt.Errorf("waiting for redis at %s: %w", strings.Join(r.cfg.Addrs, ", "), r.pending.err)
	}
	return nil
}

// awaitServers opens the store in the background. It returns after the first
// try or five seconds.
func (r *Store) awaitServers(ctx context.Context, expected string) {
	p := &r.pending
	p.err = errNotTried
	p.is.Store(true)
	tried := make(chan struct{})
	r.tasks.Go(func() { r.openLate(r.background, expected, sync.OnceFunc(func() { close(tried) })) })
	timer := time.NewTimer(openFirst)
	defer timer.Stop()
	select {
	case <-tried:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// openLate tries to open the store until it is open or ctx ends. It calls tried
// after each try.
func (r *Store) openLate(ctx context.Context, expected string, tried func()) {
	defer tried()
	pauses := newBackOff(openRetry)
	for open := false; ; {
		var err error
		if !open {
			err = r.tryOpen(ctx, expected)
			open = err == nil
		}
		if open {
			if err = r.finishOpen(ctx); err == nil {
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		r.pending.fail(r, err)
		tried()
		if wait(ctx, pauses.NextBackOff()) != nil {
			return
		}
	}
}

func (r *Store) tryOpen(ctx context.Context, expected string) error {
	ctx, cancel := context.WithTimeout(ctx, openTry)
	defer cancel()
	return r.open(ctx, expected)
}

// finishOpen makes the store usable, after accepting a loss if that was ordered.
func (r *Store) finishOpen(ctx context.Context) error {
	p := &r.pending
	for p.finish() {
		if err := r.acceptLoss(ctx); err != nil {
			p.acceptLater()
			return err
		}
	}
	if p.logged != "" {
		r.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "redis is usable, store is open")
	}
	return nil
}

// finish ends the waiting, or reports that a loss is to be accepted first.
func (p *pending) finish() (accept bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if accept, p.accept = p.accept, false; !accept {
		p.err = nil
		p.is.Store(false)
	}
	return accept
}

// acceptLater orders a loss to be accepted when a pending store opens. It
// reports whether the store is pending.
func (p *pending) acceptLater() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accept = p.err != nil
	return p.accept
}

// fail records why the servers are unusable. It logs a new problem at once and
// the same one every minute.
func (p *pending) fail(r *Store, err error) {
	p.mu.Lock()
	p.err = err
	p.mu.Unlock()
	now := time.Now()
	if problem := problemOf(err); problem != p.logged || now.Sub(p.loggedAt) >= openLog {
		p.logged, p.loggedAt = problem, now
		level, text := slog.LevelError, "redis is unsuitable, retrying until it is corrected"
		if absent(err) {
			level, text = slog.LevelWarn, "redis does not answer, retrying"
		}
		r.cfg.Log.LogAttrs(context.Background(), level, text, slog.Any("addresses", r.cfg.Addrs), slog.Any("error", err))
	}
}

// problemOf returns the text of an error without digits, which differ between
// tries: ports, process ids, counts.
func problemOf(err error) string {
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, err.Error())
}

// absent reports whether no server answered, or one is still starting. Other
// problems have to be corrected at the servers or in the configuration.
func absent(err error) bool {
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	for _, prefix := range []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"} {
		if redis.HasErrorPrefix(err, prefix) || strings.Contains(err.Error(), ": "+prefix+" ") {
			return true
		}
	}
	return strings.Contains(err.Error(), "sentinels specified in configuration are unreachable")
}
