package journal

import "time"

// Stats are the figures of a journal and of the store that uses it.
type Stats struct {
	Entries int64  // in the file
	Bytes   int64  // size of the file
	Added   uint64 // entries added since the process started
	Dropped uint64 // entries dropped within the window, because there were too many

	// Of the store, since the process started.
	Replays      uint64    // replays of the journal
	Replayed     uint64    // records changed by replays
	Missing      uint64    // events published again because a feed lacked them
	LastFailover time.Time // when an unknown primary was last met; zero: never
	Shut         bool      // the store is fenced until a replay ends
}

// Stats returns the figures of the journal.
func (j *Journal) Stats() Stats {
	return Stats{Entries: j.entries.Load(), Bytes: j.size.Load(), Added: j.added.Load(), Dropped: j.dropped.Load()}
}
