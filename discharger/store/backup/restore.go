package backup

import (
	"errors"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
)

// Restored is the result of a restore.
type Restored struct {
	// Vouched is set if the journal has all revocations since the backup was
	// made. Otherwise every session that was activated before needs a new login.
	Vouched bool

	// Again are the revocations that the backup lacked, and the journal had.
	Again []revocation.Revocation

	Losses store.Losses // as they were recorded
}

// ErrExists is returned by a restore into a store that exists.
var ErrExists = errors.New("there is a store already")

// Plan returns the losses that a restore at some time records, whether the journal
// vouches for the backup, and the number of the first entry of the journal to
// replay. Without a journal, which can be nil, nothing vouches for it.
func Plan(j *journal.Journal, from *Backup, now time.Time) (out *Restored, first uint64, err error) {
	out = &Restored{Losses: store.Losses{Missing: now.UnixMilli(), All: from.All}}
	if j != nil {
		if err := j.Damage(); err != nil {
			return nil, 0, err
		}
		if id, _ := j.Belongs(); id == from.Store {
			if first, out.Vouched, err = j.From(from.Commit); err != nil {
				return nil, 0, err
			}
		}
	}
	if !out.Vouched {
		out.Losses.All = from.Incomplete()
	}
	return out, first, nil
}

// Incomplete returns the time before which revocations may be missing if nothing
// vouches for the backup. Activations have the precision of a second.
func (b *Backup) Incomplete() int64 { return max(b.All, b.At+1) }
