package journal

import (
	"time"
)

// Stats says what a store's journal has done and is doing.
type Stats struct {
	Entries      int64     // in the file
	Bytes        int64     // size of the file
	Added        uint64    // entries, since the process started
	Dropped      uint64    // entries that went before their time, because there were too many
	Replays      uint64    // times that the primaries were brought up to date
	Replayed     uint64    // records that had to be changed for that
	Missing      uint64    // events that were not in a feed, though the records were as they should be
	LastFailover time.Time // when another primary was last met; zero: not since the process started
	Shut         bool      // the store waits for a replay
}

// Stats returns what the journal has done.
func (j *Journal) Stats() Stats {
	return Stats{Entries: j.entries.Load(), Bytes: j.size.Load(), Added: j.added.Load(), Dropped: j.dropped.Load()}
}

// Path returns the path of the file.
func (j *Journal) Path() string { return j.cfg.Path }

// Oldest returns the time, Unix ms, from which on entries are kept.
func (j *Journal) Oldest() int64 { return j.cfg.Now().Add(-j.cfg.Window).UnixMilli() }
