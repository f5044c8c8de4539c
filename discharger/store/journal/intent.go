package journal

import (
	"context"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/revocation"
)

// Intent is a revocation that is in the journal and may not be in the store yet.
type Intent struct {
	Entries []revocation.Revocation // the entries that were added
	work    *work                   // nil: none was added
}

// Last returns the greatest number of the entries, 0 for none.
func (i *Intent) Last() uint64 {
	if i.work == nil || len(i.work.numbers) == 0 {
		return 0
	}
	return i.work.numbers[len(i.work.numbers)-1]
}

// Abandon ends an intent whose outcome is unknown. Its entries stay.
func (i *Intent) Abandon() {
	if i.work != nil {
		i.work.settled.Store(true)
	}
}

// Add writes entries of revocations that are in the store, and returns when they
// are on the disk. After an error they may have been written.
func (j *Journal) Add(ctx context.Context, entries ...revocation.Revocation) error {
	i, err := j.Begin(ctx, entries)
	if err == nil {
		j.recent.add(i.Entries, j.cfg.now(), j.cfg.Window/4)
	}
	return err
}

// Begin writes the entries of a revocation that is about to be made, except those
// that were committed recently.
func (j *Journal) Begin(ctx context.Context, entries []revocation.Revocation) (Intent, error) {
	i := Intent{Entries: j.recent.without(entries, j.cfg.now(), j.cfg.Window/4)}
	if len(i.Entries) == 0 {
		return i, nil
	}
	w := &work{add: i.Entries, pending: true}
	if err := j.do(ctx, w); err != nil {
		w.settled.Store(true) // the entries may still be written, and the revocation is not made
		return Intent{Entries: i.Entries}, err
	}
	i.work = w
	return i, nil
}

// Commit ends an intent whose outcome is known. If the revocation did not take
// effect, its entries become void.
func (j *Journal) Commit(ctx context.Context, i Intent, done bool) error {
	if i.work == nil {
		return nil
	}
	if done {
		i.work.settled.Store(true)
		j.recent.add(i.Entries, j.cfg.now(), j.cfg.Window/4)
		return nil
	}
	err := j.do(ctx, &work{void: i.work.numbers})
	i.work.settled.Store(true)
	return err
}

// work is a request to the writing goroutine.
type work struct {
	add     []revocation.Revocation
	pending bool     // the revocations are not made yet
	void    []uint64 // numbers of entries whose revocations did not take effect
	check   bool     // make a checkpoint
	clear   bool     // remove all entries

	numbers []uint64 // of the entries that were added
	settled atomic.Bool
	done    chan error // of capacity 1
}

// do has the writing goroutine write w, and waits until it is on the disk.
func (j *Journal) do(ctx context.Context, w *work) (err error) {
	defer wrap(&err, "write journal")
	if err := j.Damage(); err != nil {
		return err
	}
	w.done = make(chan error, 1)
	select {
	case j.work <- w:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sweep removes the entries that are past the window. A store calls it regularly,
// since otherwise only writes remove entries.
func (j *Journal) Sweep(ctx context.Context) error { return j.do(ctx, &work{}) }
