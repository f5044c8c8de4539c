package session

import (
	"bytes"
	"encoding"
	"fmt"
	"math"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// A replay must bring back nothing that was revoked, and end nothing that was
// not, although other processes may have written since. A session that has ended
// stays ended. "All of a user's sessions" is a generation: the store may have lost
// it together with the session that was excepted, which is then lifted above the
// generation again, and so is a session that began after the revocation and before
// the loss was noticed. A session counts as one if it was activated more than
// [store.ClockSlack] after the revocation. One that began sooner ends as well: its
// user logs in once more, and no revoked session lives.
//
// Nothing in the records distinguishes those from older ones: a session that began
// after the loss has the generation that the store had then, and the clocks of two
// processes differ. It takes three things at once: the revocation is lost, the
// process that activated the session did not know it yet, and all that within
// ClockSlack. A single process activates nothing before it has replayed. Sessions
// that were minted before the revocation and activated after its loss are not
// distinguished from later ones either, since records have no time of minting.
//
// "All of a homeserver's" excepts no session: sessions that began between the loss
// and its discovery end with the others.

// replay is the state of a user's records during a replay.
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

// Replay returns the changes that make a user's records show revocations, which are all
// of that user, the oldest first, and those revocations that the records did not show:
// their events have to be published again. Without changes, the records show all of them.
// Unreadable records are left as they are, since no discharge is issued by them.
func Replay(journaled []revocation.Revocation, l store.Listing, now time.Time) (changes []store.Change, restored []revocation.Revocation, err error) {
	p, err := newReplay(l, now)
	if err != nil {
		return nil, nil, err
	}
	marks := liftedMarks(journaled, p.now)
	for i := range journaled {
		r, changed := &journaled[i], false
		if marks.has(r) {
			continue
		}
		switch r.Kind {
		case revocation.KindSession:
			if _, unreadable := l.Sessions[r.Session]; !unreadable || p.sessions[r.Session] != nil {
				changed = p.endSession(r)
			}
		case revocation.KindUser:
			changed = p.endUser(r)
		case revocation.KindDevice:
			if _, unreadable := l.Devices[r.Tag]; !unreadable || p.devices[r.Tag] != nil {
				changed = p.revokeDevice(r)
			}
		default:
			return nil, nil, fmt.Errorf("replay revocations: kind %d does not concern a user", r.Kind)
		}
		if changed {
			p.restored = append(p.restored, *r)
		}
	}
	changes, err = p.changes(l)
	return changes, p.restored, err
}

func newReplay(l store.Listing, now time.Time) (*replay, error) {
	p := &replay{
		now: now.UnixMilli(), sessions: make(map[caveat.SessionID]*replayed, len(l.Sessions)),
		devices: make(map[revocation.DeviceTag]*replayedDevice, len(l.Devices)),
	}
	if err := p.user.UnmarshalBinary(l.User); err != nil {
		return nil, fmt.Errorf("replay revocations: %w", err)
	}
	for id, raw := range l.Sessions {
		x := &replayed{}
		if err := x.UnmarshalBinary(raw); err == nil {
			p.sessions[id] = x
		}
	}
	for tag, raw := range l.Devices {
		x := &replayedDevice{}
		if err := x.UnmarshalBinary(raw); err == nil {
			p.devices[tag] = x
		}
	}
	return p, nil
}

// forgotten reports whether the store may have forgotten a revocation on time.
func (p *replay) forgotten(r *revocation.Revocation) bool { return r.Keep != 0 && r.Keep*1000 <= p.now }

// endSession makes a session's record a tombstone, and reports whether it was none.
// Without a record, a tombstone is needed as long as the session could be activated.
func (p *replay) endSession(r *revocation.Revocation) bool {
	x := p.sessions[r.Session]
	switch {
	case x == nil && p.forgotten(r), x != nil && x.Over():
		return false
	case x == nil:
		x = &replayed{}
		p.sessions[r.Session] = x
		x.Confirmed.Epoch = r.Generation
	}
	p.end(x, r)
	return true
}

// end makes a record a tombstone. It is kept at least as long as the revocation,
// and long enough for every request that is under way.
func (p *replay) end(x *replayed, r *revocation.Revocation) {
	end := r.End()
	if end.Cause == "" {
		end.Soft, end.Cause = r.Kind == revocation.KindSession, revocation.CauseRevoked
	}
	x.Record = *x.Record.Tombstone(end)
	x.changed = true
	x.keep = (p.now + TombstoneSlack.Milliseconds()) / 1000
	if r.Keep == 0 {
		x.keep = 0
	} else {
		x.keep = max(x.keep, r.Keep)
	}
}

// revokeDevice sets the mark of a device, and reports whether it was missing.
func (p *replay) revokeDevice(r *revocation.Revocation) bool {
	x := p.devices[r.Tag]
	if x == nil {
		if p.forgotten(r) {
			return false
		}
		x = &replayedDevice{}
		p.devices[r.Tag] = x
	}
	switch {
	case r.Generation > 0 && x.Revoked == int64(r.Generation):
		x.DeviceRecord = x.Lift(r.At)
	case x.Revoked >= r.At:
		return false
	default:
		x.DeviceRecord = x.Revoke(r.At, r.Except, r.End())
	}
	x.changed, x.keep = true, r.Keep
	return true
}

// changes returns the changes of the records that the replay changed.
func (p *replay) changes(l store.Listing) (out []store.Change, err error) {
	add := func(changed bool, c store.Change, keep int64, next encoding.BinaryMarshaler) {
		if !changed || err != nil {
			return
		}
		if c.New, err = next.MarshalBinary(); err != nil || bytes.Equal(c.New, c.Old) {
			return
		}
		if keep > 0 && keep < math.MaxInt64 {
			c.Expires = time.Unix(keep, 0)
		}
		out = append(out, c)
	}
	add(p.raised, store.Change{Old: l.User}, p.keepUser, p.user)
	for id, x := range p.sessions {
		add(x.changed, store.Change{Session: id, Old: l.Sessions[id]}, x.keep, &x.Record)
	}
	for tag, x := range p.devices {
		add(x.changed, store.Change{Device: tag, Old: l.Devices[tag]}, x.keep, x.DeviceRecord)
	}
	if err != nil {
		return nil, fmt.Errorf("replay revocations: %w", err)
	}
	return out, nil
}

// ReplayHomeserver returns a homeserver's record that shows revocations of the
// homeserver, and its latest revocation. If record shows them already, next is the
// same bytes.
func ReplayHomeserver(homeserver string, journaled []revocation.Revocation, record []byte, now time.Time) (next []byte, latest revocation.Revocation, err error) {
	var v GenerationRecord
	if err := v.UnmarshalBinary(record); err != nil {
		return nil, latest, fmt.Errorf("replay revocations: %w", err)
	}
	old, marks := v, liftedMarks(journaled, now.UnixMilli())
	for i := range journaled {
		r := &journaled[i]
		if r.Kind != revocation.KindHomeserver {
			return nil, latest, fmt.Errorf("replay revocations: kind %d does not concern a homeserver", r.Kind)
		}
		if marks.has(r) {
			continue
		}
		if v.Generation == r.Generation && v.At > marks.now && r.At <= marks.now { // it was lifted
			v.At = r.At
		}
		if r.Generation > v.Generation && r.Cause != "" {
			v.note(GenerationEnd{Generation: r.Generation, End: r.End()})
		}
		v.Generation, v.At = max(v.Generation, r.Generation), max(v.At, r.At)
	}
	if v.Generation == old.Generation && v.At == old.At {
		return record, latest, nil
	}
	if next, err = v.MarshalBinary(); err != nil {
		return nil, latest, fmt.Errorf("replay revocations: %w", err)
	}
	return next, RevokedHomeserver(homeserver, &v), nil
}
