package backup

import (
	"errors"

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

// ErrExists is returned by [RestoreBolt] if there is a file already.
var ErrExists = errors.New("there is a store already")

// Vouches reports whether the journal has everything since a backup, and from
// which number on. Without that, all that it has is replayed.
func Vouches(j *journal.Journal, from *Backup) (first uint64, ok bool, err error) {
	if err := j.Damage(); err != nil {
		return 0, false, err
	}
	if id, _ := j.Belongs(); id != from.Store {
		return 0, false, nil
	}
	return j.From(from.Commit)
}
