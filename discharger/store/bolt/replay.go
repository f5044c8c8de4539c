package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
)

// An older copy of the file lacks revocations, which are replayed from the
// journal; see package store. Its age is the number of its last commit:
//
//	commit of the file                action
//	the last known one, or later      entries since the last checkpoint are replayed:
//	                                  they may be missing after a crash
//	earlier, but after a checkpoint   entries since that checkpoint are replayed
//	before every checkpoint           lost, until AcceptLoss
//	of another identity               lost, until AcceptLoss
//
// An older copy that was opened numbers its commits far above those of the file it
// replaced, so that copies of both can be distinguished.

// branchGap is the distance between the commit numbers of two histories. It is
// greater than the number of commits that the journal can lack.
const branchGap = 1 << 32

// branch raises the commit number above all earlier ones.
func (b *Store) branch(meta *bbolt.Bucket) error {
	last := readNumber(meta, keyCommit)
	if b.cfg.Journal != nil {
		_, known := b.cfg.Journal.Belongs()
		last = max(last, known)
	}
	return putNumber(meta, keyCommit, last+branchGap)
}

// current reports whether the journal shows that the file is not an older copy.
// For a damaged journal, its state decides.
func (b *Store) current() bool {
	if b.cfg.Journal == nil {
		return false
	}
	id, commit := b.cfg.Journal.Belongs()
	return id == b.id && commit > 0 && b.commits.Load() >= commit
}

// noteJournal records in the file the last number of the journal that it has used.
func (b *Store) noteJournal(tx *bbolt.Tx, number uint64) error {
	if number == 0 {
		return nil
	}
	id, _ := b.cfg.Journal.Identity()
	meta := tx.Bucket(bucketMeta)
	old := meta.Get(keyJournal)
	if len(old) == 24 && bytes.Equal(old[:16], id[:]) && binary.BigEndian.Uint64(old[16:]) >= number {
		return nil
	}
	return meta.Put(keyJournal, binary.BigEndian.AppendUint64(bytes.Clone(id[:]), number))
}

// journalLacks reports whether the journal is not the one that the file has used,
// or an older copy of it.
func (b *Store) journalLacks() (lacks bool, err error) {
	id, next := b.cfg.Journal.Identity()
	err = b.db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketMeta).Get(keyJournal)
		lacks = len(v) == 24 && (!bytes.Equal(v[:16], id[:]) || binary.BigEndian.Uint64(v[16:]) >= next)
		return nil
	})
	return lacks, err
}

// catchUp compares the file with the journal, and replays the revocations that
// the file may lack.
func (b *Store) catchUp() error {
	j := b.cfg.Journal
	if j == nil {
		return nil
	}
	if err := j.Damage(); err != nil {
		b.lose(err)
		return nil
	}
	ctx := context.Background()
	lacks, err := b.journalLacks()
	if err != nil {
		return err
	}
	id, known := j.Belongs()
	if id != "" && id != b.id {
		b.lose(fmt.Errorf("%s is not the store that journal %s belongs to", b.cfg.Path, j.Path()))
		return nil
	}
	commit := b.commits.Load()
	if id == "" || lacks && commit >= known {
		if lacks {
			b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "journal is not the one that the store has used, or an older copy: "+
				"revocations up to now cannot be made again if an older copy of the store is put back",
				slog.String("path", b.cfg.Path), slog.String("journal", j.Path()))
		}
		return j.Attach(ctx, b.id, b.commits.Load, true)
	}
	from, ok, err := j.From(commit)
	if err != nil {
		return err
	}
	if !ok {
		b.lose(fmt.Errorf("%s is an older copy, from before the entries of journal %s", b.cfg.Path, j.Path()))
		return nil
	}
	if err := b.replayFrom(ctx, from, commit < known); err != nil {
		return err
	}
	return j.Attach(ctx, b.id, b.commits.Load, false)
}

// replayFrom replays the journal from a number on.
func (b *Store) replayFrom(ctx context.Context, from uint64, older bool) error {
	entries, err := b.cfg.Journal.Since(from)
	if err != nil {
		return err
	}
	done, err := b.replay(ctx, entries)
	if err != nil {
		return err
	}
	if older {
		b.cfg.Log.LogAttrs(ctx, slog.LevelWarn,
			"store is an older copy: revocations since were made again from the journal; sessions activated since log in again",
			slog.String("path", b.cfg.Path), slog.Int("entries", len(entries)), slog.Int("records", done.Records))
		return b.recordLosses(b.Losses())
	}
	if done.Records > 0 {
		b.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "revocations replayed",
			slog.Int("entries", len(entries)), slog.Int("records", done.Records))
	}
	return nil
}

// replayAtOnce is how many users one transaction replays.
const replayAtOnce = 500

// replay applies revocations to the records, and publishes those that the records
// did not show. It returns these and the number of changed records.
func (b *Store) replay(ctx context.Context, entries []revocation.Revocation) (out store.Replayed, err error) {
	users, homeservers := journal.ByUser(entries)
	batches := slices.Collect(slices.Chunk(slices.Collect(maps.Values(users)), replayAtOnce))
	batches = append(batches, slices.Collect(maps.Values(homeservers)))
	now := b.cfg.now()
	for _, batch := range batches {
		var done store.Replayed
		var commit uint64
		err := b.db.Update(func(tx *bbolt.Tx) (err error) {
			if done, err = b.cfg.Replayer.Replay(ctx, &target{store: b, tx: tx, now: now}, slices.Concat(batch...), now); err != nil {
				return err
			}
			commit, err = nextCommit(tx)
			return err
		})
		if err != nil {
			return out, err
		}
		b.commits.Store(commit)
		out.Records, out.Restored = out.Records+done.Records, append(out.Restored, done.Restored...)
	}
	b.replays.Add(1)
	b.replayed.Add(uint64(out.Records))
	return out, nil
}

// target is the file during a replay, in one transaction.
type target struct {
	store *Store
	now   time.Time
	mu    sync.Mutex
	tx    *bbolt.Tx
}

var _ store.ReplayTarget = (*target)(nil)

func (t *target) List(_ context.Context, user store.UserKey) (store.Listing, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return listRows(t.tx, user, t.now)
}

func (t *target) Swap(_ context.Context, w store.Write) (bool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return swapRows(t.tx, w, t.now)
}

func (t *target) LoadHomeserver(_ context.Context, homeserver string) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return readHomeserver(t.tx, homeserver), nil
}

func (t *target) SwapHomeserver(ctx context.Context, homeserver string, old, new []byte, revocations ...revocation.Revocation) (bool, error) {
	t.mu.Lock()
	done, err := swapHomeserver(t.tx, homeserver, old, new)
	t.mu.Unlock()
	if err != nil || !done {
		return false, err
	}
	return true, t.Publish(ctx, homeserver, revocations...)
}

func (t *target) Publish(_ context.Context, homeserver string, revocations ...revocation.Revocation) error {
	events, err := revocation.Lines(revocations)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.store.appendEvents(t.tx, homeserver, events)
}

// PublishMissing does nothing: records and events are written together.
func (t *target) PublishMissing(context.Context, []revocation.Revocation) (int, error) { return 0, nil }

// noteCommits writes the number of the last commit to the journal once a minute,
// if it has changed.
func (b *Store) noteCommits(ctx context.Context) {
	tick := time.NewTicker(journal.CheckpointEvery)
	defer tick.Stop()
	last := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := b.commits.Load()
		if now == last || b.lost.Load() != nil {
			continue
		}
		if err := b.cfg.Journal.Checkpoint(ctx); err == nil {
			last = now
		} else if ctx.Err() == nil {
			b.cfg.Log.LogAttrs(ctx, slog.LevelError, "writing the journal failed", slog.Any("error", err))
		}
	}
}

// JournalStats returns the figures of journal and replays; without a journal, zero.
func (b *Store) JournalStats() journal.Stats {
	if b.cfg.Journal == nil {
		return journal.Stats{}
	}
	s := b.cfg.Journal.Stats()
	s.Replays, s.Replayed = b.replays.Load(), b.replayed.Load()
	return s
}
