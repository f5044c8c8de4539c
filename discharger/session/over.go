package session

import (
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// Expires returns when the store may forget a record of this session: when its
// limits have ended it, but not while its caveat could activate it again. A hard end
// is kept for Limits.Remember. Zero means never.
func Expires(r *Record, c *caveat.Condition, l Limits) time.Time {
	keep := c.Minted + (l.Activation + l.Skew + TombstoneSlack).Milliseconds()
	if r.Over() {
		keep = max(keep, r.End.At+TombstoneSlack.Milliseconds())
		if !r.End.Soft {
			keep = max(keep, r.End.At+l.Remember.Milliseconds())
		}
		return time.UnixMilli(keep)
	}
	ends := endsAt(c, l)
	if l.Idle > 0 {
		if idle := r.LastUsed + (l.Idle + l.touch()).Milliseconds(); ends == 0 || idle < ends {
			ends = idle
		}
	}
	if ends == 0 {
		return time.Time{}
	}
	return time.UnixMilli(max(keep, ends))
}

// Ended returns the end of a session with a record: its tombstone's, or that of the
// first revocation of all sessions after its activation.
func (s State) Ended() (revocation.End, bool) {
	r := s.Session
	if r.Over() {
		return r.End, true
	}
	var first revocation.End
	found := false
	if r.UserGeneration < s.User.Generation {
		first, found = s.User.EndAbove(r.UserGeneration), true
	}
	if r.HomeserverGeneration < s.Homeserver.Generation {
		if end := s.Homeserver.EndAbove(r.HomeserverGeneration); !found || end.At < first.At {
			first, found = end, true
		}
	}
	if !found && r.Created < s.Losses.All {
		first, found = revocation.End{Soft: true, Cause: revocation.CauseLost, At: s.Losses.All}, true
	}
	return first, found
}

// endsNow returns the end of a live session whose time is up or whose device has a
// newer session.
func endsNow(s State, e *Event, l Limits) (revocation.End, bool) {
	c, r := e.Condition, s.Session
	if ends := endsAt(c, l); ends > 0 && e.Now >= ends || r.Idle(e.Now, l) {
		return revocation.End{Soft: true, Cause: revocation.CauseExpired, At: e.Now}, true
	}
	// Earlier versions did not set Current at an activation.
	d := &s.Device
	if d.Current != (caveat.SessionID{}) && d.Current != c.Session && r.Device == c.Device && r.Created < d.Since {
		return revocation.End{Soft: true, Cause: revocation.CauseReplaced, At: e.Now}, true
	}
	return revocation.End{}, false
}

// covered returns the oldest mark that covers a session without a record, which
// lived at the time since, and the session's end; 0: none.
func covered(s State, c *caveat.Condition, since int64) (end revocation.End, mark int64) {
	consider := func(at int64, by revocation.End) {
		if mark == 0 || by.At < end.At {
			end, mark = by, at
		}
	}
	if s.User.covers(c, since) {
		consider(s.User.At, s.User.endSince(since))
	}
	if s.Homeserver.covers(c, since) {
		consider(s.Homeserver.At, s.Homeserver.endSince(since))
	}
	if at, end := s.Device.covers(c, since); at > 0 {
		consider(at, end)
	}
	return end, mark
}

// Idle reports whether the session's last discharge is longer ago than Limits.Idle.
func (r *Record) Idle(now int64, l Limits) bool {
	return l.Idle > 0 && now >= r.LastUsed+l.Idle.Milliseconds()
}

func inWindow(e *Event, l Limits) bool {
	return within(e.Condition.Minted, e.Now, l.Activation)
}

// within reports whether now is no later than d after t; also if it is before t.
func within(t, now int64, d time.Duration) bool { return now-t <= d.Milliseconds() }

// endsAt returns when the session ends at the latest; 0: never.
func endsAt(c *caveat.Condition, l Limits) int64 {
	ends := c.Expires
	if l.Absolute > 0 {
		if a := c.Minted + l.Absolute.Milliseconds(); ends == 0 || a < ends {
			ends = a
		}
	}
	return ends
}
