package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
)

// DamageError is the error for a damaged journal. A store that lost revocations
// cannot be given back the ones that cannot be read.
type DamageError struct {
	Path     string
	Numbers  []NumberRange // of the unreadable entries; nil: unknown
	From, To time.Time     // when the readable entries around them were written; zero: unknown
	Err      error         // nil: checksums are wrong or numbers are missing
}

// NumberRange is a range of numbers, inclusive.
type NumberRange struct{ From, To uint64 }

// shownRanges bounds how many ranges an error names.
const shownRanges = 5

// Error names the file, the numbers, and the times around them.
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

// Damage returns a [*DamageError] if damage was found when the journal was opened or read
// last. Nothing is written to a damaged journal until [Journal.Renew] is called.
func (j *Journal) Damage() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.damage == nil {
		return nil
	}
	return j.damage
}

// Renew moves a damaged file aside, returns its new name, and starts another one
// with the readable entries. It is an operator's decision: the unreadable
// revocations cannot be replayed any more.
func (j *Journal) Renew(ctx context.Context) (aside string, kept int, err error) {
	aside, entries, err := j.renew()
	if err == nil && len(entries) > 0 {
		err = j.do(ctx, &work{add: entries})
	}
	if err != nil {
		return aside, 0, fmt.Errorf("renew journal: %w", err)
	}
	j.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "damaged journal moved aside, journal started again",
		slog.String("path", j.cfg.Path), slog.String("aside", aside), slog.Int("entries", len(entries)))
	return aside, len(entries), nil
}

func (j *Journal) renew() (aside string, entries []revocation.Revocation, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.damage == nil {
		return "", nil, errors.New("journal is not damaged")
	}
	if !j.unsafe {
		j.scan(func(_ uint64, r *row) {
			if !r.void {
				entries = append(entries, r.entry)
			}
		})
	}
	aside = fmt.Sprintf("%s.damaged-%d", j.cfg.Path, j.cfg.now().UnixMilli())
	if err := os.Link(j.cfg.Path, aside); err != nil {
		return "", nil, err
	}
	if err := errors.Join(j.db.Close(), os.Remove(j.cfg.Path)); err != nil {
		return aside, nil, err
	}
	j.damage, j.state, j.pending = nil, state{}, nil
	j.recent.clear()
	if err := j.open(); err != nil {
		j.damage = &DamageError{Path: j.cfg.Path, Err: err}
		return aside, nil, err
	}
	return aside, entries, nil
}
