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

// ReloaderConfig configures a [Reloader].
type ReloaderConfig struct {
	Load Config // files to load

	// Require are the names of policies that the service's configuration
	// contains. A set without one of them is refused.
	Require []string

	// Interval is the time between two looks at the files; 0 means a second.
	Interval time.Duration

	// Reloaded is called after every attempt unless it is nil. After an error
	// the set with the given hash stays in force.
	Reloaded func(hash string, err error)
}

// A Reloader evaluates the current [Set] of its files and replaces it atomically when valid
// files have changed. Invalid files leave the last valid set in
// force. One set makes each decision.
//
// The reloader reads the files at an interval and compares their contents. That takes
// some microseconds, works on every file system and through the symbolic links that
// Kubernetes swaps, and finds changes that keep the time stamp; kernel notifications do
// not. It acts on a change after two equal reads in a row, so that it does not load a
// file that is still being written.
type Reloader struct {
	cfg     ReloaderConfig
	current atomic.Pointer[Set]
	mu      sync.Mutex // held while loading
	tried   []watched  // the files of the last attempt, as they were then
}

// watched is a file with the hash of its contents at the last read.
type watched struct {
	name  string
	limit int64 // bytes that are read
	sum   [sha256.Size]byte
}

// sumOf returns the hash of a file's contents, or a fixed hash for each kind of read error.
func sumOf(data []byte, err error) [sha256.Size]byte {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sha256.Sum256([]byte("missing"))
	case err != nil:
		return sha256.Sum256([]byte("unreadable"))
	}
	return sha256.Sum256(data)
}

// NewReloader loads the files. Invalid files are an error.
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

// Reload loads the files now, also if they are unchanged.
func (r *Reloader) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := newLoader(r.cfg.Load)
	set, err := l.tested()
	for _, name := range r.cfg.Require {
		if err == nil && !set.Has(name) {
			err = fmt.Errorf("policy %q in the configuration: %w", name, ErrUnknownPolicy)
		}
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

// Run reloads changed files until the context ends.
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
			// Reloaded received the error; the set stays in force.
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

// look hashes the files again.
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

// Evaluate evaluates the set in force; see [Set.Evaluate].
func (r *Reloader) Evaluate(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	return r.Current().Evaluate(ctx, in)
}
