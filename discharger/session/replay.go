package session

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// Replay of revocations: a store that
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

// replay is what the records of one user become.
type replay struct {
	now      int64 // Unix ms
	user     GenerationRecord
	raised   bool
	keepUser int64
	sessions map[caveat.SessionID]*replayed
	devices  map[revocation.DeviceTag]*replayedDevice
	restored []revocation.Revocation
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
func Replay(entries []revocation.Revocation, l store.Listing, now time.Time) (changes []store.Change, restored []revocation.Revocation, err error) {
	p := replay{
		now: now.UnixMilli(), sessions: make(map[caveat.SessionID]*replayed, len(l.Sessions)),
		devices: make(map[revocation.DeviceTag]*replayedDevice, len(l.Devices)),
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
		case revocation.KindSession:
			if _, unreadable := l.Sessions[e.Session]; !unreadable || p.sessions[e.Session] != nil {
				changed = p.endSession(e)
			}
		case revocation.KindUser:
			changed = p.endUser(e)
		case revocation.KindDevice:
			if _, unreadable := l.Devices[e.Tag]; !unreadable || p.devices[e.Tag] != nil {
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

// endSession makes a session's record a tombstone, and reports whether it was
// none. Where there is no record, one is needed as long as the session could be
// activated.
func (p *replay) endSession(e *revocation.Revocation) bool {
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
func (p *replay) end(r *replayed, e *revocation.Revocation) {
	end := e.End()
	if end.Cause == "" {
		end.Soft, end.Cause = e.Kind == revocation.KindSession, revocation.CauseRevoked
	}
	r.Record = *r.Record.Tombstone(end)
	r.changed = true
	r.keep = (p.now + TombstoneSlack.Milliseconds()) / 1000
	if e.Keep == 0 {
		r.keep = 0
	} else {
		r.keep = max(r.keep, e.Keep)
	}
}

// revokeDevice notes the revocation of a device, and reports whether it was
// missing.
func (p *replay) revokeDevice(e *revocation.Revocation) bool {
	r := p.devices[e.Tag]
	if r == nil {
		if e.Keep != 0 && e.Keep*1000 <= p.now {
			return false
		}
		r = &replayedDevice{}
		p.devices[e.Tag] = r
	}
	if e.Generation > 0 && r.Revoked == int64(e.Generation) {
		r.DeviceRecord = r.Lift(e.At)
		r.changed, r.keep = true, e.Keep
		return true
	}
	if r.Revoked >= e.At {
		return false
	}
	r.DeviceRecord = r.Revoke(e.At, e.Except, e.End())
	r.changed, r.keep = true, e.Keep
	return true
}

// endUser raises a user's generation, and reports whether anything had to be
// done. If it is as high already, others may have raised it since the store
// forgot this one: then a session they excepted is ended if it is one that this
// revocation did not except.
func (p *replay) endUser(e *revocation.Revocation) (changed bool) {
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
		p.user.Spare(&before, e.Except, e.Devices)
	}
	p.user.Generation = max(p.user.Generation, e.Generation)
	if e.Cause != "" {
		p.user.Note(GenerationEnd{Generation: e.Generation, End: e.End()})
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

func (p *replay) changes(l store.Listing) ([]store.Change, error) {
	var out []store.Change
	add := func(c store.Change, keep int64, next interface{ MarshalBinary() ([]byte, error) }) error {
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
		if err := add(store.Change{Old: l.User}, p.keepUser, p.user); err != nil {
			return nil, err
		}
	}
	for id, r := range p.sessions {
		if !r.changed {
			continue
		}
		if err := add(store.Change{Session: id, Old: l.Sessions[id]}, r.keep, &r.Record); err != nil {
			return nil, err
		}
	}
	for tag, r := range p.devices {
		if !r.changed {
			continue
		}
		if err := add(store.Change{Device: tag, Old: l.Devices[tag]}, r.keep, r.DeviceRecord); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ReplayHomeserver returns what a homeserver's record becomes when it shows
// what the entries say: the same bytes if it does so already.
func ReplayHomeserver(entries []revocation.Revocation, record []byte, now time.Time) ([]byte, error) {
	var v GenerationRecord
	if err := v.UnmarshalBinary(record); err != nil {
		return nil, fmt.Errorf("replay revocations: %w", err)
	}
	old, marks := v, liftedMarks(entries, now.UnixMilli())
	for i := range entries {
		if entries[i].Kind != revocation.KindHomeserver {
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
			v.Note(GenerationEnd{Generation: e.Generation, End: e.End()})
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

// lifted are marks from the future that an operator lifted.
type lifted struct {
	now     int64                                   // Unix ms; marks later than that are from the future
	raised  map[uint64]bool                         // generations with an entry that is not from the future
	devices map[revocation.DeviceTag]map[int64]bool // of a device: the marks
}

// liftedMarks finds them: a lifted mark has another entry, which is not from the
// future.
func liftedMarks(entries []revocation.Revocation, now int64) lifted {
	l := lifted{now: now + ClockSlack.Milliseconds(), raised: make(map[uint64]bool), devices: make(map[revocation.DeviceTag]map[int64]bool)}
	for i := range entries {
		e := &entries[i]
		switch {
		case e.At > l.now:
		case e.Kind == revocation.KindUser, e.Kind == revocation.KindHomeserver:
			l.raised[e.Generation] = true
		case e.Kind == revocation.KindDevice && e.Generation > 0:
			if l.devices[e.Tag] == nil {
				l.devices[e.Tag] = make(map[int64]bool)
			}
			l.devices[e.Tag][int64(e.Generation)] = true
		}
	}
	return l
}

// has reports whether an entry's mark was lifted.
func (l *lifted) has(e *revocation.Revocation) bool {
	switch {
	case e.At <= l.now:
		return false
	case e.Kind == revocation.KindUser, e.Kind == revocation.KindHomeserver:
		return l.raised[e.Generation]
	case e.Kind == revocation.KindDevice:
		return l.devices[e.Tag][e.At]
	}
	return false
}
