package discharger

import "github.com/discharger/discharger/discharger/revocation"

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
			if l.devices[e.Device] == nil {
				l.devices[e.Device] = make(map[int64]bool)
			}
			l.devices[e.Device][int64(e.Generation)] = true
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
		return l.devices[e.Device][e.At]
	}
	return false
}
