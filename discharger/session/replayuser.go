package session

import (
	"math"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
)

// endUser raises a user's generation to that of a revocation, and reports whether
// anything changed. If the generation is as high already, another process may have
// raised it since the store forgot this revocation: then a session that was
// excepted there ends here if this revocation did not except it.
func (p *replay) endUser(r *revocation.Revocation) (changed bool) {
	lost := p.user.Generation < r.Generation
	if lost && p.forgotten(r) && !p.anyLive() {
		return false // forgotten on time and not lost: the user has no session left
	}
	changed = p.endSessions(r, lost)
	ahead := p.now + store.ClockSlack.Milliseconds()
	if p.user.Generation == r.Generation && p.user.At > ahead && r.At <= ahead { // it was lifted
		p.user.At, p.user.Covered = r.At, min(p.user.Covered, r.At)
		p.raised, p.keepUser = true, max(p.keepUser, r.Keep)
		return true
	}
	if !lost && p.user.At >= r.At {
		return changed
	}
	// The record is kept as long after the latest revocation as it was after this one.
	if r.At >= p.user.At {
		before := p.user
		p.user.At = r.At
		p.user.Spare(&before, r.Except, r.Devices)
	}
	p.user.Generation = max(p.user.Generation, r.Generation)
	if r.Cause != "" {
		p.user.note(GenerationEnd{Generation: r.Generation, End: r.End()})
	}
	if p.raised = true; r.Keep != 0 {
		p.keepUser = max(p.keepUser, r.Keep+(p.user.At-r.At)/1000)
	} else {
		p.keepUser = math.MaxInt64
	}
	return true
}

// endSessions lifts the sessions above the generation of a lost revocation that it
// spared or that began after it. If the revocation was not lost, it ends the
// sessions that others spared, and reports whether there were any.
func (p *replay) endSessions(r *revocation.Revocation, lost bool) (changed bool) {
	slack := store.ClockSlack.Milliseconds()
	for id, x := range p.sessions {
		if x.Over() || x.UserGeneration < p.user.Generation {
			continue
		}
		switch {
		case r.Devices && x.Device == "":
			if lost {
				x.UserGeneration, x.changed, x.keep = r.Generation, true, 0
			}
		case lost && id == r.Except:
			x.UserGeneration, x.changed, x.keep = r.Generation, true, r.ExceptKeep
		case lost && x.Created > r.At+slack:
			x.UserGeneration, x.changed, x.keep = r.Generation, true, 0
		case !lost && id != r.Except && x.Created < r.At-slack:
			p.end(x, r)
			changed = true
		}
	}
	return changed
}

// anyLive reports whether the user has a session without a tombstone.
func (p *replay) anyLive() bool {
	for _, x := range p.sessions {
		if !x.Over() {
			return true
		}
	}
	return false
}

// lifted are marks from the future that an operator lifted.
type lifted struct {
	now     int64                                   // Unix ms; later marks are from the future
	raised  map[uint64]bool                         // generations that also have a mark from the past
	devices map[revocation.DeviceTag]map[int64]bool // marks of a device
}

// liftedMarks returns the marks that were lifted: those with another revocation,
// which is not from the future.
func liftedMarks(journaled []revocation.Revocation, now int64) lifted {
	l := lifted{now: now + store.ClockSlack.Milliseconds(), raised: make(map[uint64]bool), devices: make(map[revocation.DeviceTag]map[int64]bool)}
	for i := range journaled {
		r := &journaled[i]
		switch {
		case r.At > l.now:
		case r.Kind == revocation.KindUser, r.Kind == revocation.KindHomeserver:
			l.raised[r.Generation] = true
		case r.Kind == revocation.KindDevice && r.Generation > 0:
			if l.devices[r.Tag] == nil {
				l.devices[r.Tag] = make(map[int64]bool)
			}
			l.devices[r.Tag][int64(r.Generation)] = true
		}
	}
	return l
}

// has reports whether a revocation's mark was lifted.
func (l *lifted) has(r *revocation.Revocation) bool {
	switch {
	case r.At <= l.now:
		return false
	case r.Kind == revocation.KindUser, r.Kind == revocation.KindHomeserver:
		return l.raised[r.Generation]
	case r.Kind == revocation.KindDevice:
		return l.devices[r.Tag][r.At]
	}
	return false
}
