package homeserver

import (
	"cmp"
	"math"
	"slices"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// marks are the revocations of one user, of one of its devices, or of a
// homeserver. Each covers sessions by the time at which they were minted. Which
// sessions are covered does not depend on the order in which marks are added.
// The value is not changed once it can be read.
type marks struct {
	recent     []mark // ascending, at most maxMarks
	softBefore int64  // Unix ms; marks were dropped, and the kind of sessions minted earlier is soft; 0: none were
}

// mark is one revocation.
type mark struct {
	before  int64            // Unix ms; covers sessions that were minted earlier
	except  caveat.SessionID // but not this one; zero: none
	devices bool             // but not sessions without a device
	soft    bool
}

// maxMarks bounds how many revocations are kept apart, so that the kind of end
// of each session is known.
const maxMarks = 8

func markOf(r *revocation.Event) mark {
	return mark{before: r.Before.UnixMilli(), except: r.Except, devices: r.Devices, soft: r.Soft}
}

func (m *mark) covers(id *Identity, minted int64) bool {
	return minted < m.before && (m.except != id.Session || m.except == caveat.SessionID{}) && (!m.devices || id.Device != "")
}

// compare orders marks by time, and of one time soft ones first.
func (m *mark) compare(o *mark) int {
	return cmp.Or(cmp.Compare(m.before, o.before), -compareBool(m.soft, o.soft), compareBool(m.devices, o.devices),
		slices.Compare(m.except[:], o.except[:]))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// add returns the marks with one more.
func (s marks) add(m mark) marks {
	at, _ := slices.BinarySearchFunc(s.recent, m, func(x, m mark) int { return x.compare(&m) })
	if at < len(s.recent) && s.recent[at] == m {
		return s
	}
	all := make([]mark, 0, len(s.recent)+1)
	all = append(append(append(all, s.recent[:at]...), m), s.recent[at:]...)
	for i := 0; len(all) > maxMarks; {
		if !redundant(all, i) {
			i++
			continue
		}
		s.softBefore = max(s.softBefore, all[i].before)
		all = slices.Delete(all, i, i+1)
	}
	s.recent = all
	return s
}

// redundant reports whether later marks cover all sessions that mark i covers.
// Of any five marks, one is redundant: two with different exceptions, or one
// without, leave nothing out, and the same holds for those among them that
// cover sessions without a device.
func redundant(all []mark, i int) bool {
	m := &all[i]
	anyDevice := leftOut(all[i+1:], false)
	noDevice := leftOut(all[i+1:], true)
	return anyDevice.within(m) && (m.devices || noDevice.within(m))
}

// gap is the set of sessions that marks leave out.
type gap struct {
	all     bool
	session caveat.SessionID // without all: only this one; zero: none
}

func (g gap) within(m *mark) bool {
	return !g.all && (g.session == caveat.SessionID{} || g.session == m.except)
}

// leftOut returns the sessions, with or without a device, that were minted
// early enough but that no mark covers.
func leftOut(all []mark, bare bool) gap {
	g := gap{all: true}
	for i := range all {
		switch m := &all[i]; {
		case bare && m.devices:
		case g.all:
			g = gap{session: m.except}
		case g.session != m.except:
			g = gap{}
		}
	}
	return g
}

// first returns the time and the kind of the oldest revocation that covers a session.
func (s *marks) first(id *Identity, minted int64) (before int64, soft, covered bool) {
	for i := range s.recent {
		if m := &s.recent[i]; m.covers(id, minted) {
			if s.softBefore > 0 && minted < s.softBefore {
				return math.MinInt64, true, true
			}
			return m.before, m.soft, true
		}
	}
	return 0, false, false
}
