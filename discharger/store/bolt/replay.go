package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
)

// A copy of the file that is put back shows sessions as they were: those that
// ended since would live again. The journal is another file and has the
// revocations since, and commits are numbered, so the missing ones are known.
//
//	commit of the file                action
//	the last known one, or later      entries since the last checkpoint are replayed:
//	                                  they may be missing after a crash
//	earlier, but after a checkpoint   entries since that checkpoint are replayed
//	before every checkpoint           lost, until AcceptLoss
//	of another identity               lost, until AcceptLoss
//
// The number of the last commit is written to the journal with every entry,
// once a minute, and when the file is closed. An older copy that lacks only
// refreshes of the last minute before a crash is not detected: its clients
// present tokens that are newer than their records, which are accepted and
// logged. If the journal is put back together with the file, nothing is
// detected, and sessions that ended since live again.
//
// The successor of an older copy numbers its commits far above those of the
// file, so that copies of both can be distinguished.

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

// noteJournal notes in the file which number of the journal it has used.
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

// journalLacks reports whether the journal is another one than the file has
// used, or an older copy of it.
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
	if err := b.giveAgain(ctx, from, commit < known); err != nil {
		return err
	}
	return j.Attach(ctx, b.id, b.commits.Load, false)
}

// giveAgain replays the journal from a number on.
func (b *Store) giveAgain(ctx context.Context, from uint64, older bool) error {
	entries, err := b.cfg.Journal.Since(from)
	if err != nil {
		return err
	}
	changed, err := b.replay(entries)
	if err != nil {
		return err
	}
	if older {
		b.cfg.Log.LogAttrs(ctx, slog.LevelWarn,
			"store is an older copy: revocations since were made again from the journal; sessions activated since log in again",
			slog.String("path", b.cfg.Path), slog.Int("entries", len(entries)), slog.Int("records", changed))
		return b.recordLosses(b.Losses())
	}
	if changed > 0 {
		b.cfg.Log.LogAttrs(ctx, slog.LevelInfo, "revocations replayed",
			slog.Int("entries", len(entries)), slog.Int("records", changed))
	}
	return nil
}

// replayAtOnce is how many users one transaction replays.
const replayAtOnce = 500

// replay applies entries to the file, publishes the missing ones, and returns
// the number of changed records.
func (b *Store) replay(entries []revocation.Revocation) (changed int, err error) {
	users, homeservers := journal.ByUser(entries)
	now := b.cfg.Now()
	for some := range slices.Chunk(slices.Collect(maps.Keys(users)), replayAtOnce) {
		err := b.db.Update(func(tx *bbolt.Tx) error {
			for _, u := range some {
				n, err := b.replayUser(tx, u, users[u], now)
				if changed += n; err != nil {
					return err
				}
			}
			_, err := nextCommit(tx)
			return err
		})
		if err != nil {
			return changed, fmt.Errorf("replay: %w", err)
		}
	}
	err = b.db.Update(func(tx *bbolt.Tx) error {
		for name, some := range homeservers {
			n, err := b.replayHomeserver(tx, name, some, now)
			if changed += n; err != nil {
				return err
			}
		}
		commit, err := nextCommit(tx)
		b.commits.Store(commit)
		return err
	})
	if err != nil {
		return changed, fmt.Errorf("replay: %w", err)
	}
	b.replays.Add(1)
	b.replayed.Add(uint64(changed))
	return changed, nil
}

func (b *Store) replayUser(tx *bbolt.Tx, u store.UserKey, entries []revocation.Revocation, now time.Time) (int, error) {
	l, err := listRows(tx, u, now)
	if err != nil {
		return 0, err
	}
	changes, restored, err := session.Replay(entries, l, now)
	if err != nil || len(changes) == 0 {
		return 0, err
	}
	done, err := swapRows(tx, store.Write{User: u, Changes: changes}, now)
	if err == nil && !done {
		err = errors.New("the records are others than were read")
	}
	if err != nil {
		return 0, err
	}
	if b.restored != nil {
		*b.restored = append(*b.restored, restored...)
	}
	return len(changes), b.appendEvents(tx, u.Homeserver, b.events(restored, now))
}

func (b *Store) replayHomeserver(tx *bbolt.Tx, name string, entries []revocation.Revocation, now time.Time) (int, error) {
	record := bytes.Clone(tx.Bucket(bucketHomeservers).Get(appendName(nil, name)))
	next, err := session.ReplayHomeserver(entries, record, now)
	if err != nil || bytes.Equal(next, record) {
		return 0, err
	}
	e, err := session.RevokedHomeserver(name, next)
	if err != nil {
		return 0, err
	}
	if _, err := swapHomeserver(tx, name, record, next); err != nil {
		return 0, err
	}
	if b.restored != nil {
		*b.restored = append(*b.restored, e)
	}
	return 1, b.appendEvents(tx, name, b.events([]revocation.Revocation{e}, now))
}

// events returns the events of restored entries. One that cannot be written is
// logged, and does not keep the store shut.
func (b *Store) events(entries []revocation.Revocation, now time.Time) (out []store.FeedEvent) {
	for i := range entries {
		e, err := b.cfg.Announce(&entries[i], now)
		switch {
		case err != nil:
			b.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, "a revocation was restored that cannot be announced", slog.Any("error", err))
		case e.Data != nil:
			out = append(out, e)
		}
	}
	return out
}

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
		if err := b.cfg.Journal.Checkpoint(ctx); err != nil {
			if ctx.Err() == nil {
				b.cfg.Log.LogAttrs(ctx, slog.LevelError, "writing the journal failed", slog.Any("error", err))
			}
			continue
		}
		last = now
	}
}

// JournalStats returns the figures of journal and replays; without a journal,
// zero.
func (b *Store) JournalStats() journal.Stats {
	j := b.cfg.Journal
	if j == nil {
		return journal.Stats{}
	}
	s := j.Stats()
	s.Replays, s.Replayed = b.replays.Load(), b.replayed.Load()
	return s
}
