package discharger

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

// This file says what a revocation is once it is only remembered: a store that
// can lose what it has acknowledged has each process write down what it
// revokes, and do it again if that comes about. It is as pure as Step is.
//
// Doing it again must bring back nothing that was revoked and end nothing that
// was not, whatever others have done meanwhile. For a session that is simple:
// once ended, it stays ended. "All of a user's sessions" is a generation, and
// the store may have forgotten it together with the one session that was
// excepted, which then has to be lifted above the generation again, and so has
// a session that began after the revocation and before anyone noticed. Which
// those are, only clocks can tell: a session counts as a later one if it was
// activated more than [ClockSlack] after the revocation. One that began sooner
// after it is ended too: somebody logs in once more, and nobody stays logged in
// who should not.
//
// Nothing in the records tells these from older ones. A session that began
// after the loss has the generation that the store then had, which is what the
// sessions have that were revoked; and the moment when it began is by the clock
// of the process that activated it, while that of the revocation is by another
// one's. A list of the sessions that there were would have to be taken by the
// store as it makes the revocation, kept with the entry, and told to all
// processes, for the sake of a login that needs three things to come together:
// the revocation is lost; whoever let the login in had not been told of it,
// which takes a moment; and all within ClockSlack, less than the time in which
// most failovers are noticed. A lone process cannot meet it: it lets nobody in
// before it has replayed.
//
// Sessions that were minted before the revocation but activated after the
// store forgot it, by a process that had not been told of it, are not told from
// later ones either: records do not say when a session was minted.
//
// "All of a homeserver's" is a generation too, of which no session is excepted:
// sessions that began between the loss and its discovery end with the others.

// ClockSlack is how far apart the clocks of a service's processes may be.
const ClockSlack = 10 * time.Second

// JournalKind is what an entry of a journal is about.
type JournalKind uint8

// The kinds.
const (
	JournalSession    JournalKind = iota + 1 // one session
	JournalUser                              // all of a user's but Except
	JournalHomeserver                        // all of a homeserver's
	JournalDevice                            // all of a device's that have no record
)

// JournalEntry is one revocation, as a process remembers it that has ordered
// it or heard of it.
type JournalEntry struct {
	Kind       JournalKind
	Homeserver string
	User       string           // not of a homeserver
	Session    caveat.SessionID // of a session
	Except     caveat.SessionID // of a user or a device; zero: none
	Device     DeviceTag        // of a device
	Generation uint64           // of a user or a homeserver: what it was raised to; of a session: its epoch; of a device: the mark that was lifted, or 0
	At         int64            // Unix ms
	Devices    bool             // of a user: only sessions that have a device

	// How the sessions ended. Entries of earlier versions do not have it: a
	// session of theirs ended softly, all of a user's or a homeserver's hard.
	Soft  bool
	Cause Cause
	Code  string

	// Keep is until when the store has to remember the revocation, and
	// ExceptKeep until when it has to remember the excepted session, in Unix
	// seconds; zero: for ever.
	Keep, ExceptKeep int64
}

// end returns how the sessions of an entry ended.
func (e *JournalEntry) end() End {
	return End{Soft: e.Soft, Cause: e.Cause, Code: e.Code, At: e.At}
}

// journalSession returns the entry of one session that becomes a tombstone.
func journalSession(user UserKey, session caveat.SessionID, r *Record, expires time.Time) JournalEntry {
	return JournalEntry{
		Kind: JournalSession, Homeserver: user.Homeserver, User: user.User, Session: session, Generation: r.Confirmed.Epoch,
		At: r.End.At, Keep: unixOrNever(expires), Soft: r.End.Soft, Cause: r.End.Cause, Code: r.End.Code,
	}
}

// journalUser returns the entry of a user's revocation.
func journalUser(user UserKey, v *Revocation, expires time.Time) JournalEntry {
	e := JournalEntry{
		Kind: JournalUser, Homeserver: user.Homeserver, User: user.User, Except: v.Except, Generation: v.Generation, At: v.At,
		Keep: unixOrNever(expires),
	}
	e.Devices = v.Devices
	e.ended(v)
	return e
}

// ended notes how the latest revocation of a record ended sessions.
func (e *JournalEntry) ended(v *Revocation) {
	if v.Generation == 0 {
		return
	}
	end := v.endAbove(v.Generation - 1)
	e.Soft, e.Cause, e.Code = end.Soft, end.Cause, end.Code
}

// JournalOfHomeserver returns what a new record of a homeserver revokes.
func JournalOfHomeserver(homeserver string, record []byte) (JournalEntry, error) {
	var v Revocation
	if err := v.UnmarshalBinary(record); err != nil {
		return JournalEntry{}, fmt.Errorf("journal revocation of a homeserver: %w", err)
	}
	e := JournalEntry{Kind: JournalHomeserver, Homeserver: homeserver, Generation: v.Generation, At: v.At}
	e.ended(&v)
	return e, nil
}

func unixOrNever(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix() + 1
}

// replay is what the records of one user become.
type replay struct {
	now      int64 // Unix ms
	user     Revocation
	raised   bool
	keepUser int64
	sessions map[caveat.SessionID]*replayed
	devices  map[DeviceTag]*replayedDevice
	restored []JournalEntry
}

type replayedDevice struct {
	DeviceRecord
	changed bool
	keep    int64
}

type replayed struct {
	Record
	changed bool
	keep    int64
}

// Replay returns the changes that make a user's records show what the entries
// say, which are all of that user, the oldest first, and for which of the
// entries they are: what these say has to be announced again. Nothing to change
// is no changes. Records that cannot be read are left as they are: nobody gets
// a discharge by them.
func Replay(entries []JournalEntry, l Listing, now time.Time) (changes []Change, restored []JournalEntry, err error) {
	p := replay{
		now: now.UnixMilli(), sessions: make(map[caveat.SessionID]*replayed, len(l.Sessions)),
		devices: make(map[DeviceTag]*replayedDevice, len(l.Devices)),
	}
	if err := p.user.UnmarshalBinary(l.User); err != nil {
		return nil, nil, fmt.Errorf("replay revocations: %w", err)
	}
	for id, raw := range l.Sessions {
		r := &replayed{}
		if err := r.UnmarshalBinary(raw); err == nil {
			p.sessions[id] = r
		}
	}
	for tag, raw := range l.Devices {
		r := &replayedDevice{}
		if err := r.UnmarshalBinary(raw); err == nil {
			p.devices[tag] = r
		}
	}
	marks := liftedMarks(entries, p.now)
	for i := range entries {
		e, changed := &entries[i], false
		if marks.has(e) {
			continue
		}
		switch e.Kind {
		case JournalSession:
			if _, unreadable := l.Sessions[e.Session]; !unreadable || p.sessions[e.Session] != nil {
				changed = p.endSession(e)
			}
		case JournalUser:
			changed = p.endUser(e)
		case JournalDevice:
			if _, unreadable := l.Devices[e.Device]; !unreadable || p.devices[e.Device] != nil {
				changed = p.revokeDevice(e)
			}
		default:
			return nil, nil, fmt.Errorf("replay revocations: kind %d is not a user's", e.Kind)
		}
		if changed {
			p.restored = append(p.restored, *e)
		}
	}
	if changes, err = p.changes(l); err != nil {
		return nil, nil, err
	}
	return changes, p.restored, nil
}

// lifted are marks from the future that an operator lifted.
type lifted struct {
	now     int64                        // Unix ms; marks later than that are from the future
	raised  map[uint64]bool              // generations with an entry that is not from the future
	devices map[DeviceTag]map[int64]bool // of a device: the marks
}

// liftedMarks finds them: a lifted mark has another entry, which is not from the
// future.
func liftedMarks(entries []JournalEntry, now int64) lifted {
	l := lifted{now: now + ClockSlack.Milliseconds(), raised: make(map[uint64]bool), devices: make(map[DeviceTag]map[int64]bool)}
	for i := range entries {
		e := &entries[i]
		switch {
		case e.At > l.now:
		case e.Kind == JournalUser, e.Kind == JournalHomeserver:
			l.raised[e.Generation] = true
		case e.Kind == JournalDevice && e.Generation > 0:
			if l.devices[e.Device] == nil {
				l.devices[e.Device] = make(map[int64]bool)
			}
			l.devices[e.Device][int64(e.Generation)] = true
		}
	}
	return l
}

// has reports whether an entry's mark was lifted.
func (l *lifted) has(e *JournalEntry) bool {
	switch {
	case e.At <= l.now:
		return false
	case e.Kind == JournalUser, e.Kind == JournalHomeserver:
		return l.raised[e.Generation]
	case e.Kind == JournalDevice:
		return l.devices[e.Device][e.At]
	}
	return false
}

// endSession makes a session's record a tombstone, and reports whether it was
// none. Where there is no record, one is needed as long as the session could be
// activated.
func (p *replay) endSession(e *JournalEntry) bool {
	r := p.sessions[e.Session]
	switch {
	case r == nil && e.Keep != 0 && e.Keep*1000 <= p.now, r != nil && r.Over():
		return false
	case r == nil:
		r = &replayed{}
		p.sessions[e.Session] = r
		r.Confirmed.Epoch = e.Generation
	}
	p.end(r, e)
	return true
}

// end makes a record a tombstone that stays at least as long as was meant at
// first, and long enough for all who look at the session now.
func (p *replay) end(r *replayed, e *JournalEntry) {
	end := e.end()
	if end.Cause == "" {
		end.Soft, end.Cause = e.Kind == JournalSession, CauseRevoked
	}
	r.Record = *r.Record.ended(end)
	r.changed = true
	r.keep = (p.now + tombstoneSlack.Milliseconds()) / 1000
	if e.Keep == 0 {
		r.keep = 0
	} else {
		r.keep = max(r.keep, e.Keep)
	}
}

// revokeDevice notes the revocation of a device, and reports whether it was
// missing.
func (p *replay) revokeDevice(e *JournalEntry) bool {
	r := p.devices[e.Device]
	if r == nil {
		if e.Keep != 0 && e.Keep*1000 <= p.now {
			return false
		}
		r = &replayedDevice{}
		p.devices[e.Device] = r
	}
	if e.Generation > 0 && r.Revoked == int64(e.Generation) {
		r.DeviceRecord = r.lifted(e.At)
		r.changed, r.keep = true, e.Keep
		return true
	}
	if r.Revoked >= e.At {
		return false
	}
	r.DeviceRecord = r.revoked(e.At, e.Except, e.end())
	r.changed, r.keep = true, e.Keep
	return true
}

// endUser raises a user's generation, and reports whether anything had to be
// done. If it is as high already, others may have raised it since the store
// forgot this one: then a session they excepted is ended if it is one that this
// revocation did not except.
func (p *replay) endUser(e *JournalEntry) (changed bool) {
	lost := p.user.Generation < e.Generation
	if lost && e.Keep != 0 && e.Keep*1000 <= p.now && !p.live() {
		return false // not lost but forgotten, as it may be when no session is left
	}
	slack := ClockSlack.Milliseconds()
	for id, r := range p.sessions {
		if r.Over() || r.UserGeneration < p.user.Generation {
			continue
		}
		switch {
		case e.Devices && r.Device == "":
			if lost {
				r.UserGeneration, r.changed, r.keep = e.Generation, true, 0
			}
		case lost && id == e.Except:
			r.UserGeneration, r.changed, r.keep = e.Generation, true, e.ExceptKeep
		case lost && r.Created > e.At+slack:
			r.UserGeneration, r.changed, r.keep = e.Generation, true, 0
		case !lost && id != e.Except && r.Created < e.At-slack:
			p.end(r, e)
			changed = true
		}
	}
	ahead := p.now + slack
	if p.user.Generation == e.Generation && p.user.At > ahead && e.At <= ahead { // it was lifted
		p.user.At, p.user.Covered = e.At, min(p.user.Covered, e.At)
		p.raised, p.keepUser = true, max(p.keepUser, e.Keep)
		return true
	}
	if !lost && p.user.At >= e.At {
		return changed
	}
	// The record is kept as long after the latest revocation as it was after
	// this one.
	if e.At >= p.user.At {
		before := p.user
		p.user.At = e.At
		p.user.spare(&before, e.Except, e.Devices)
	}
	p.user.Generation = max(p.user.Generation, e.Generation)
	if e.Cause != "" {
		p.user.note(GenerationEnd{Generation: e.Generation, End: e.end()})
		slices.SortFunc(p.user.Ends, func(x, y GenerationEnd) int { return cmp.Compare(x.Generation, y.Generation) })
	}
	if p.raised = true; e.Keep != 0 {
		p.keepUser = max(p.keepUser, e.Keep+(p.user.At-e.At)/1000)
	} else {
		p.keepUser = math.MaxInt64
	}
	return true
}

// live reports whether there is a session that was not ended by itself.
func (p *replay) live() bool {
	for _, r := range p.sessions {
		if !r.Over() {
			return true
		}
	}
	return false
}

func (p *replay) changes(l Listing) ([]Change, error) {
	var out []Change
	add := func(c Change, keep int64, next interface{ MarshalBinary() ([]byte, error) }) error {
		b, err := next.MarshalBinary()
		if err != nil {
			return fmt.Errorf("replay revocations: %w", err)
		}
		if bytes.Equal(b, c.Old) {
			return nil
		}
		c.New = b
		if keep > 0 && keep < math.MaxInt64 {
			c.Expires = time.Unix(keep, 0)
		}
		out = append(out, c)
		return nil
	}
	if p.raised {
		if err := add(Change{Old: l.User}, p.keepUser, p.user); err != nil {
			return nil, err
		}
	}
	for id, r := range p.sessions {
		if !r.changed {
			continue
		}
		if err := add(Change{Session: id, Old: l.Sessions[id]}, r.keep, &r.Record); err != nil {
			return nil, err
		}
	}
	for tag, r := range p.devices {
		if !r.changed {
			continue
		}
		if err := add(Change{Device: tag, Old: l.Devices[tag]}, r.keep, r.DeviceRecord); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ReplayHomeserver returns what a homeserver's record becomes when it shows
// what the entries say: the same bytes if it does so already.
func ReplayHomeserver(entries []JournalEntry, record []byte, now time.Time) ([]byte, error) {
	var v Revocation
	if err := v.UnmarshalBinary(record); err != nil {
		return nil, fmt.Errorf("replay revocations: %w", err)
	}
	old, marks := v, liftedMarks(entries, now.UnixMilli())
	for i := range entries {
		if entries[i].Kind != JournalHomeserver {
			return nil, fmt.Errorf("replay revocations: kind %d is not a homeserver's", entries[i].Kind)
		}
		e := &entries[i]
		if marks.has(e) {
			continue
		}
		if v.Generation == e.Generation && v.At > marks.now && e.At <= marks.now { // it was lifted
			v.At = e.At
		}
		if e.Generation > v.Generation && e.Cause != "" {
			v.note(GenerationEnd{Generation: e.Generation, End: e.end()})
		}
		v.Generation, v.At = max(v.Generation, e.Generation), max(v.At, e.At)
	}
	if v.Generation == old.Generation && v.At == old.At {
		return record, nil
	}
	slices.SortFunc(v.Ends, func(x, y GenerationEnd) int { return cmp.Compare(x.Generation, y.Generation) })
	b, err := v.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("replay revocations: %w", err)
	}
	return b, nil
}
