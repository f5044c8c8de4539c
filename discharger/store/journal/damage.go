package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger/boltfile"
	"github.com/discharger/discharger/discharger/revocation"
)

// DamageError is the error for a journal in which something is damaged. The
// revocations that cannot be read may be missing in a store that has to be given
// them again.
type DamageError struct {
	Path     string
	Numbers  []NumberRange // of the entries that cannot be read; none: it is not known which
	From, To time.Time     // when these were written: between the readable ones beside them; zero: not known
	Err      error         // nil: their checksums are wrong, or they are not there
}

// NumberRange is a range of numbers, both included.
type NumberRange struct{ From, To uint64 }

// shownRanges bounds how many ranges an error names.
const shownRanges = 5

// Error names the file, the numbers, and when their revocations were made.
func (d *DamageError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "journal %s is damaged", d.Path)
	if d.Err != nil {
		fmt.Fprintf(&b, ": %v", d.Err)
	}
	if len(d.Numbers) == 0 {
		b.WriteString("; any revocation in it may be missing")
		return b.String()
	}
	b.WriteString(": entries ")
	for i, r := range d.Numbers {
		if i == shownRanges {
			fmt.Fprintf(&b, " and %d more ranges", len(d.Numbers)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		if fmt.Fprintf(&b, "%d", r.From); r.To != r.From {
			fmt.Fprintf(&b, " to %d", r.To)
		}
	}
	b.WriteString(" cannot be read; their revocations may be missing, made")
	if d.From.IsZero() {
		b.WriteString(" before")
	} else {
		fmt.Fprintf(&b, " between %s and", d.From.UTC().Format(time.RFC3339))
	}
	if d.To.IsZero() {
		b.WriteString(" now")
	} else {
		b.WriteString(" " + d.To.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// Unwrap returns Err.
func (d *DamageError) Unwrap() error { return d.Err }

func (d *DamageError) add(from, to uint64) {
	if n := len(d.Numbers); n > 0 && d.Numbers[n-1].To+1 == from {
		d.Numbers[n-1].To = to
		return
	}
	d.Numbers = append(d.Numbers, NumberRange{from, to})
}

// Damage returns a [*JournalDamage] if anything in the file was found to be
// damaged: when it was opened, or when it was read last. Nothing is written to
// the file then, until [Journal.Renew] is called.
func (j *Journal) Damage() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.damage == nil {
		return nil
	}
	return j.damage
}

// read reads the whole file after it was opened.
func (j *Journal) read() error {
	live := 0
	state, damage := j.scan(func(_ uint64, r *row) {
		if !r.void {
			live++
		}
	})
	j.state, j.damage = state, damage
	j.entries.Store(int64(live))
	return nil
}

// scan reads everything. Every row is seen that can be read; a state of zeros is
// that of a file without one.
func (j *Journal) scan(see func(uint64, *row)) (state journalState, damage *DamageError) {
	s := scanner{see: see, damage: &DamageError{Path: j.cfg.Path}}
	err := boltfile.Guard(func() error { return j.db.View(s.all) })
	if err != nil {
		s.damage.Err = err
		if s.numbered {
			s.missing(s.state.next)
		}
	}
	if err == nil && len(s.damage.Numbers) == 0 {
		return s.state, nil
	}
	return s.state, s.damage
}

// scanner reads a journal.
type scanner struct {
	see      func(uint64, *row)
	state    journalState
	numbered bool   // the state says which numbers there are
	next     uint64 // the number that comes next
	before   int64  // when the last readable row was added
	damage   *DamageError
}

func (s *scanner) all(tx *bbolt.Tx) error {
	entries, state := tx.Bucket(bucketEntries), tx.Bucket(bucketState)
	if entries == nil || state == nil {
		if state != nil || tx.Bucket(bucketCheckpoints) != nil {
			return errors.New("a part is missing")
		}
		if entries == nil { // a new file
			return nil
		}
	} else {
		if err := s.state.decode(state.Get(keyState)); err != nil {
			return err
		}
		if tx.Bucket(bucketCheckpoints) == nil || tx.Bucket(bucketPrimaries) == nil {
			return errors.New("a part is missing")
		}
		if entries.Sequence() != s.state.next-1 {
			return errors.New("its numbers do not agree with its state")
		}
		s.numbered, s.next = true, max(s.state.first, s.state.numbered)
	}
	if err := entries.ForEach(s.row); err != nil {
		return err
	}
	if s.numbered {
		s.missing(s.state.next)
		return tx.Bucket(bucketCheckpoints).ForEach(func(k, v []byte) error {
			_, _, err := decodeCheckpoint(k, v)
			return err
		})
	}
	return nil
}

func (s *scanner) row(key, value []byte) error {
	if len(key) != 8 {
		return errors.New("a number is damaged")
	}
	number := binary.BigEndian.Uint64(key)
	r, err := decodeRow(number, value)
	summed := s.numbered && number >= s.state.numbered
	switch {
	case !s.numbered && (err != nil || !r.old), s.numbered && (number < s.state.first || number >= s.state.next):
		if err == nil {
			err = errors.New("its number is none of those that there should be")
		}
		return fmt.Errorf("entry %d: %w", number, err)
	case summed && number < s.next:
		return fmt.Errorf("entry %d comes after %d", number, s.next-1)
	case summed:
		s.missing(number)
		if s.next = number + 1; err != nil || r.old {
			s.damage.add(number, number)
			return nil
		}
	case err != nil:
		s.damage.add(number, number)
		return nil
	}
	if len(s.damage.Numbers) > 0 && s.damage.To.IsZero() {
		s.damage.To = time.UnixMilli(r.added)
	}
	s.before = r.added
	s.see(number, &r)
	return nil
}

// missing notes that there are no rows up to a number, which is not included.
func (s *scanner) missing(number uint64) {
	if number <= s.next {
		return
	}
	if len(s.damage.Numbers) == 0 && s.before != 0 {
		s.damage.From = time.UnixMilli(s.before)
	}
	s.damage.add(s.next, number-1)
	s.damage.To = time.Time{}
	s.next = number
}

// Renew puts a damaged file aside, whose name it returns, and begins a new one
// with the entries that can be read. It is an operator's decision: revocations
// that cannot be read are lost, should the store have to be given them again.
func (j *Journal) Renew(ctx context.Context) (aside string, kept int, err error) {
	aside, entries, err := j.renew()
	if err == nil && len(entries) > 0 {
		err = j.do(ctx, &journalWork{add: entries})
	}
	if err != nil {
		return aside, 0, fmt.Errorf("renew journal: %w", err)
	}
	j.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "damaged journal was put aside and begun anew",
		slog.String("path", j.cfg.Path), slog.String("aside", aside), slog.Int("entries", len(entries)))
	return aside, len(entries), nil
}

func (j *Journal) renew() (aside string, entries []revocation.Revocation, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.damage == nil {
		return "", nil, errors.New("it is not damaged")
	}
	if !j.unsafe {
		j.scan(func(_ uint64, r *row) {
			if !r.void {
				entries = append(entries, r.entry)
			}
		})
	}
	aside = fmt.Sprintf("%s.damaged-%d", j.cfg.Path, j.cfg.Now().UnixMilli())
	if err := os.Link(j.cfg.Path, aside); err != nil {
		return "", nil, err
	}
	if err := errors.Join(boltfile.Guard(j.db.Close), os.Remove(j.cfg.Path)); err != nil {
		return aside, nil, err
	}
	j.damage, j.state, j.pending = nil, journalState{}, nil
	j.settled.forget()
	if err := boltfile.Guard(j.open); err != nil {
		j.damage = &DamageError{Path: j.cfg.Path, Err: err}
		return aside, nil, err
	}
	return aside, entries, nil
}
