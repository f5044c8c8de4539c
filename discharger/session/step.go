package session

import (
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/policy"
)

// Step returns the outcome of one event.
func Step(s State, e *Event, l Limits) Outcome {
	c := e.Condition
	if c.Minted > e.Now+l.Skew.Milliseconds() {
		return Outcome{NotYet: true}
	}
	if c.Mode == caveat.ModeHeld && !e.ByHomeserver {
		return refuse(ReasonHomeserverRequired)
	}
	if e.Retired { // an unverifiable token ends nothing that is not over
		if s.Session != nil {
			if end, is := s.Ended(); is {
				return over(end)
			}
		}
		return over(revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: e.Now})
	}
	// The caveat alone gives no access to the user's other sessions, and in mode
	// open the client has nothing else.
	if e.Kind == EventOwn || e.Kind == EventLogoutAll {
		switch {
		case c.Mode == caveat.ModeRotate && e.Token == nil:
			return refuse(ReasonTokenRequired)
		case c.Mode == caveat.ModeOpen && !e.ByHomeserver:
			return refuse(ReasonHomeserverRequired)
		}
	}
	switch e.Kind {
	case EventDischarge, EventOwn:
		return stepDischarge(s, e, l)
	}
	return stepLogout(s, e, l)
}

func stepDischarge(s State, e *Event, l Limits) Outcome {
	c, r := e.Condition, s.Session
	// The holder of the caveat alone learns only that a token is required, also
	// after the session's end.
	if c.Mode == caveat.ModeRotate && e.Token == nil &&
		!(inWindow(e, l) && (r == nil || !r.Over() && r.unused())) {
		return refuse(ReasonTokenRequired)
	}
	if r == nil {
		return stepUnknown(s, e, l)
	}
	if end, is := s.Ended(); is {
		return over(end)
	}
	// A second macaroon of the session, minted in another mode, must not bypass the
	// mode of the first.
	if r.Mode != c.Mode {
		return refuse(ReasonTokenInvalid)
	}
	if end, is := endsNow(s, e, l); is {
		o := over(end)
		o.Next = r.Tombstone(end)
		return o
	}
	o := Outcome{Action: policy.ActionRefresh, Replay: policy.ReplayNone, Session: r, Ends: endsAt(c, l)}
	if r.Mode == caveat.ModeRotate {
		rotate(&o, e, l)
	} else if e.Now-r.LastUsed >= l.touch().Milliseconds() {
		o.Next, o.Touch = r.used(e), true
	}
	return o
}

// stepUnknown returns the outcome for a session without a record: it is activated
// now, or its activation was lost, or it is over and forgotten.
func stepUnknown(s State, e *Event, l Limits) Outcome {
	c := e.Condition
	since := c.Minted // the session lived then, and when its token was issued
	if e.Token != nil {
		since = e.Token.Nonce.issued(c.Minted-l.Skew.Milliseconds(), e.Now+l.Skew.Milliseconds())
	}
	if since == 0 { // a token of an earlier version, without a time
		return over(revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: c.Minted})
	}
	if end, mark := covered(s, c, since); mark > 0 {
		switch {
		case s.Now == 0:
			return Outcome{NeedsTime: true}
		case mark > s.Now+l.Skew.Milliseconds():
			return Outcome{NotYet: true, FutureMark: mark}
		}
		return over(end)
	}
	if since < s.Losses.Missing {
		return over(revocation.End{Soft: true, Cause: revocation.CauseLost, At: s.Losses.Missing})
	}
	ends := endsAt(c, l)
	if ends > 0 && e.Now >= ends {
		return over(revocation.End{Soft: true, Cause: revocation.CauseExpired, At: ends})
	}
	if !inWindow(e, l) {
		return over(revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: c.Minted})
	}
	if c.Device != "" && !s.Listed {
		return Outcome{NeedsDevice: true}
	}
	if e.Token == nil {
		return activate(s, e, ends)
	}
	// The activation was lost, and is repeated, unless another session is active on
	// the device.
	if d := s.Device; d.Current != c.Session && (len(s.OnDevice) > 0 || d.Current != (caveat.SessionID{}) && d.Since+1000 > since) {
		return over(revocation.End{Soft: true, Cause: revocation.CauseReplaced, At: max(d.Since, c.Minted)})
	}
	o := activate(s, e, ends)
	o.Action, o.LostWrite, o.Replaces = policy.ActionRefresh, true, nil
	r := *o.Session
	r.Confirmed = Confirmed{Epoch: e.Token.Epoch, Nonce: e.Token.Nonce, At: e.Now}
	r.Successor = nil
	o.Session = &r
	o.succeed(e, r.Confirmed)
	return o
}

// activate creates the record of a session at its first discharge, and makes the
// session the current one of its device.
func activate(s State, e *Event, ends int64) Outcome {
	c := e.Condition
	r := &Record{
		Mode: c.Mode, Created: e.Now / 1000 * 1000, LastUsed: e.Now / 1000 * 1000,
		UserGeneration: s.User.Generation, HomeserverGeneration: s.Homeserver.Generation,
		Device: c.Device, Policy: c.Policy, First: e.From.cut(), Last: e.From.cut(),
	}
	o := Outcome{Action: policy.ActionActivate, Replay: policy.ReplayNone, Session: r, Next: r, Ends: ends}
	if c.Mode == caveat.ModeRotate {
		r.Confirmed.At = e.Now
		r.Successor = &Successor{Nonce: nonceAt(e.Now), IssuedAt: e.Now, Tag: e.Tag}
		o.Issue = &Token{Epoch: 1, Nonce: r.Successor.Nonce}
	}
	if c.Device != "" {
		device := s.Device
		device.Current, device.Since = c.Session, r.Created
		o.NextDevice, o.Replaces = &device, s.OnDevice
	}
	return o
}
