package session

import (
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
)

// stepLogout returns the outcome of a logout, which requires the same as a refresh.
// For a live session the token before the confirmed one is good as well, so that a
// client can log out after a lost reply; not for a logout of all sessions.
func stepLogout(s State, e *Event, l Limits) Outcome {
	c, r := e.Condition, s.Session
	fresh := inWindow(e, l)
	first := r == nil || r.unused()
	if c.Mode == caveat.ModeRotate && e.Token == nil && !(fresh && first) {
		return refuse(ReasonTokenRequired)
	}
	o := Outcome{Session: r}
	if r == nil {
		end, mark := covered(s, c, c.Minted)
		switch {
		case mark > 0: // the session is revoked already
			o.End = end
		case e.Kind == EventLogoutAll:
			if o := stepUnknown(s, e, l); o.Reason != "" || o.NotYet || o.NeedsTime || o.NeedsDevice {
				return o
			}
			return logoutAll(s, e)
		case fresh:
			o.Next = (&Record{Device: c.Device}).Tombstone(revocation.End{Cause: revocation.CauseLogout, At: e.Now})
		}
		return o
	}
	if end, is := s.Ended(); is {
		if e.Kind == EventLogoutAll && r.Over() {
			return over(end) // an ended session cannot end the user's others
		}
		o.End = end
		return o
	}
	if r.Mode != c.Mode {
		return refuse(ReasonTokenInvalid)
	}
	if r.Mode == caveat.ModeRotate && e.Token != nil && superseded(r, e) {
		return refuse(ReasonTokenSuperseded)
	}
	end, timedOut := endsNow(s, e, l)
	switch {
	case e.Kind == EventLogoutAll && timedOut:
		o = over(end)
		o.Session, o.Next = r, r.Tombstone(end)
	case e.Kind == EventLogoutAll:
		return logoutAll(s, e)
	default:
		o.Next = r.Tombstone(revocation.End{Cause: revocation.CauseLogout, At: e.Now})
	}
	return o
}

// superseded reports whether a token is too old for a logout.
func superseded(r *Record, e *Event) bool {
	t, conf := *e.Token, r.Confirmed
	switch {
	case t.Epoch > conf.Epoch:
		return false
	case e.Kind == EventLogoutAll:
		return t != Token{Epoch: conf.Epoch, Nonce: conf.Nonce} || !exchangeable(r.Successor, e.by(r.Last), e.Now)
	}
	return t.Epoch+1 < conf.Epoch
}

func logoutAll(s State, e *Event) Outcome {
	if s.Now == 0 {
		return Outcome{NeedsTime: true}
	}
	next := s.User.Raise(max(s.Now, e.Condition.Minted), caveat.SessionID{}, revocation.End{Cause: revocation.CauseLogout})
	return Outcome{Session: s.Session, NextUser: &next, End: revocation.End{Cause: revocation.CauseLogout, At: next.At}}
}
