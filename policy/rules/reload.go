package rules

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/discharger/discharger/policy"
)

// ReloaderConfig says what to load and when to look again.
type ReloaderConfig struct {
	Load Config

	// Require are names of policies that the files must have, because the
	// service's configuration mentions them. A set without one is refused.
	Require []string

	// Interval is how often the files are looked at; 0 means a second.
	Interval time.Duration

	// Reloaded is called after every attempt, if it is not nil. On an error
	// the set with the given hash stays in force.
	Reloaded func(hash string, err error)
}

// A Reloader is a [Set] that is replaced, in one step, when its files change
// and all of them are in order. Files that are not leave the last good set in
// force. A decision is made by one set from beginning to end.
//
// Changes are found by reading the files every so often and comparing what is
// in them. That costs some microseconds, works on every file system and
// through the symbolic links that Kubernetes swaps, and misses nothing that
// keeps a time stamp; notifications of the kernel do neither. A change is
// acted on when the files are the same twice in a row, so that one being
// written is not taken for a short one.
type Reloader struct {
	cfg     ReloaderConfig
	current atomic.Pointer[Set]
	mu      sync.Mutex // held while loading
	tried   []watched  // the files of the last attempt, as they were then
}

// watched is a file that was read, and what identifies its contents.
type watched struct {
	name  string
	limit int64 // bytes that are read
	sum   [sha256.Size]byte
}

// sumOf identifies the contents of a file. One that cannot be read has
// contents of its own kind.
func sumOf(data []byte, err error) [sha256.Size]byte {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sha256.Sum256([]byte("there is no such file"))
	case err != nil:
		return sha256.Sum256([]byte("the file cannot be read"))
	}
	return sha256.Sum256(data)
}

// NewReloader loads the files for the first time. Files that are not in order
// are an error: there is no last good set yet.
func NewReloader(cfg ReloaderConfig) (*Reloader, error) {
	if cfg.Interval <= 0 {
		cfg.Interval = time.Second
	}
	if cfg.Reloaded == nil {
		cfg.Reloaded = func(string, error) {}
	}
	r := &Reloader{cfg: cfg}
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// Reload loads the files now, whether they changed or not.
func (r *Reloader) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := newLoader(r.cfg.Load)
	set, err := l.tested()
	if err == nil {
		err = r.complete(set)
	}
	r.tried = l.watched
	old := r.current.Load()
	if err != nil {
		if old != nil {
			r.cfg.Reloaded(old.hash, err)
		}
		return err
	}
	r.current.Store(set)
	r.cfg.Reloaded(set.hash, nil)
	return nil
}

// complete refuses a set without a required policy.
func (r *Reloader) complete(set *Set) error {
	for _, name := range r.cfg.Require {
		if !set.Has(name) {
			return fmt.Errorf("policy %q, which the configuration mentions: %w", name, ErrUnknownPolicy)
		}
	}
	return nil
}

// Run looks for changes until the context ends.
func (r *Reloader) Run(ctx context.Context) {
	tick := time.NewTicker(r.cfg.Interval)
	defer tick.Stop()
	last := r.lastTried()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tried := r.lastTried()
		now := r.look(tried)
		if !slices.Equal(now, tried) && slices.Equal(now, last) {
			// The error has gone to the observer; the set stays.
			_ = r.Reload()
		}
		last = now
	}
}

func (r *Reloader) lastTried() []watched {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tried
}

// look reads files again.
func (r *Reloader) look(files []watched) []watched {
	now := make([]watched, len(files))
	for i, f := range files {
		now[i] = watched{f.name, f.limit, sumOf(readLimited(r.cfg.Load.FS, f.name, f.limit))}
	}
	return now
}

// Current returns the set in force.
func (r *Reloader) Current() *Set { return r.current.Load() }

// Has reports whether the set in force has a policy of this name.
func (r *Reloader) Has(name string) bool { return r.Current().Has(name) }

// Evaluate decides with the set in force.
func (r *Reloader) Evaluate(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	return r.Current().Evaluate(ctx, in)
}
