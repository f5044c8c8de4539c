package discharger

import "time"

// Somebody who logs out twice may never have got an answer to the first time:
// the write took effect, and what it had to wait for did not come about. So
// the second time must not be answered because of what can be seen; it makes
// the write again, which changes nothing, and waits for the same. A store that
// journals revocations has this process remember it, too.

// repeat is the write that makes a revocation again which was found to be
// there. What a homeserver's revocation ended needs none: that is raised anew
// every time.
func (s *Service) repeat(a *attempt, st State, v View) ([]Change, error) {
	switch r := st.Session; {
	case r != nil && r.Ended > 0:
		a.repeats = true
		return []Change{{Session: a.cond.Session, Old: v.Session, New: v.Session, Expires: s.tombstoneExpires(a, r)}}, nil
	case v.User != nil && (r == nil && a.cond.Minted <= st.User.At || r != nil && r.UserGeneration < st.User.Generation):
		a.repeats = true
		return s.changeUser(v, &st.User)
	}
	return nil, nil
}

// tombstoneExpires is when a tombstone may be forgotten, whether or not the
// caveat of its session is known here.
func (s *Service) tombstoneExpires(a *attempt, r *Record) time.Time {
	known := a.cond
	if known.Minted == 0 {
		known.Minted = r.Ended
	}
	return Expires(r, &known, s.cfg.Limits)
}

// repeatAll does the same for tombstones that were found with others.
func (s *Service) repeatAll(a *attempt, gone []stored) []Change {
	var out []Change
	for i := range gone {
		o := &gone[i]
		a.repeats = true
		out = append(out, Change{Session: o.id, Old: o.raw, New: o.raw, Expires: s.tombstoneExpires(a, &o.record)})
	}
	return out
}
