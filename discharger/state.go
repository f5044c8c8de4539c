package discharger

import (
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/policy"
)

// This file is the only place that knows what a session may do. Step is a
// pure function: what the store holds, what happened and when go in, what is
// to be answered and stored comes out. It reads no clock, draws no random
// numbers, and keeps nothing.
//
//	                 first discharge, in time
//	    (no record) ─────────────────────────▶ live ──▶ live, epoch+1 ──▶ …
//	         ▲                                  │
//	         │ forgotten                        │ logout, revocation, theft, time,
//	         │                                  ▼ another login on the device
//	         └──────────────────────────────  ended
//
// An ended session's record is a tombstone. It remembers how and when the
// session ended, and every answer about the session agrees with it. A missing
// record means "not yet activated" inside the activation window. After it, it
// means that the session has ended and is forgotten, which is answered as a
// soft end: no key is lost because of what is not known.
//
// # Refresh tokens
//
// A token carries its epoch and when it was issued, which strictly increases in
// a session. The confirmed token is the newest one that is known to have
// reached the client. It may be exchanged any number of times for successors,
// whose epoch is one higher, until one of them is used: that one is confirmed
// then, and the others are dead. So a reply that is lost does no harm, at any
// age and from any network. A token that is dead or older than the confirmed
// one is a copy. From the party of the last use it is refused, and the session
// lives; from another party it ends the session, softly, since nothing tells
// which of the two is the owner.
//
//	token                                   party of the last use   another party
//	none, again, first token unused         the same answer         another first token
//	none, first token used                  token_required          token_required
//	confirmed, no successor yet             a successor             a successor
//	confirmed, successor unused,
//	  same request or within Grace          the same successor      another successor
//	confirmed, successor unused, later      another successor       another successor
//	confirmed, successor reported as used   token_superseded        another successor for three minutes,
//	                                                                then token_reused, the session ends
//	unused successor                        confirmed; a successor  confirmed; a successor
//	dead, or older than the confirmed one   token_superseded        token_reused, the session ends
//	newer than the record                   the store lost a write: it is believed
//	no record, inside the window            the store lost the activation: it is made again
//
// A homeserver's report that it saw a discharge in use shows that a successor has
// arrived, and the confirmed token is superseded. But for three minutes another
// party can exchange it: the client may have read it before on its other network,
// and repeats a request that was lost. What that party is handed was not reported,
// so the confirmed token can be exchanged again until a successor is used. If
// several successors were handed out, each stays usable until one is presented.
//
// # Revocation
//
// All of a user's sessions are revoked by generation, which an activated session
// has in its record. One that is not activated yet has only the time at which it
// was minted, and that is by its homeserver's clock, while the revocation is by
// the store's. So a session that a homeserver mints with a clock ahead, shortly
// before such a revocation, seems to be from after it, and can still be
// activated. Shortly is no more than the clock is ahead. That is not much more
// than Limits.Skew without being noticed: what is minted with a clock further
// ahead can only be used when the rest of the time has gone by. A
// revocation of one session by its id ends it whatever the clocks say.
//
// A mark, which is the time of such a revocation, may lie in the future if a
// clock was wrong when it was made. Nothing is decided by it then.

// Limits are the lengths of time that bound a session. They are the same for
// all sessions of a service.
type Limits struct {
	Activation time.Duration // from minting to the first discharge, at the latest
	Grace      time.Duration // how long the same party gets the same successor again
	Idle       time.Duration // without a discharge for this long, the session ends; 0: never
	Absolute   time.Duration // from minting, the session ends; 0: never
	Skew       time.Duration // how far ahead a homeserver's clock may be
	Remember   time.Duration // how long a hard end is remembered
}

// reportSlack is how long another party can exchange the confirmed token after a
// report that its successor's discharge was used: longer than a client repeats a
// request.
const reportSlack = 3 * time.Minute

// tombstoneSlack is how long a tombstone outlives the time it is needed for,
// so that a clock set back by less cannot reopen an activation window.
const tombstoneSlack = time.Hour

// touch is how stale LastUsed may become in the modes that write nothing else.
func (l Limits) touch() time.Duration {
	if l.Idle > 0 {
		return min(time.Hour, l.Idle/8)
	}
	return time.Hour
}

// State is what the store holds: a session's record, nil if there is none,
// those of its user, its homeserver and its device, and what the store lost.
type State struct {
	Session    *Record
	User       Revocation
	Homeserver Revocation
	Device     DeviceRecord
	Losses     Losses

	// Now is the store's time, Unix ms; 0: it was not read, see
	// Outcome.NeedsTime.
	Now int64

	// OnDevice holds the other live sessions of the device, if Listed; see
	// Outcome.NeedsDevice.
	OnDevice []caveat.SessionID
	Listed   bool
}

// EventKind is what is asked for.
type EventKind uint8

// The events.
const (
	EventDischarge EventKind = iota + 1 // activation or refresh
	EventLogout                         // this session
	EventLogoutAll                      // every session of the user
	EventOwn                            // listing and ending the user's sessions
)

// Event is one request, with everything about it that matters here already
// verified: the condition was sealed by a registered homeserver, the token's
// signature and its holder's restrictions hold.
type Event struct {
	Kind         EventKind
	Now          int64 // Unix ms
	Condition    *caveat.Condition
	Token        *Token // nil: none was presented
	Retired      bool   // a token was presented whose key was retired; Token is nil then
	ByHomeserver bool   // the session's own homeserver asks, with its API key
	Tag          RequestTag
	From         Party
	Agent        string // the User-Agent of From
}

// Token is what a refresh token says about itself.
type Token struct {
	Epoch uint64
	Nonce Nonce
}

// Reason says why something was refused. Its text is part of the wire contract.
type Reason string

// The reasons for a refusal by the core.
const (
	ReasonSessionEnded       Reason = "session_ended"       // logged out or revoked; or there is no record of it
	ReasonSessionExpired     Reason = "session_expired"     // too old, or idle for too long
	ReasonSessionLost        Reason = "session_lost"        // the store lost its data since
	ReasonReplaced           Reason = "replaced"            // a newer login on the same device
	ReasonTokenRequired      Reason = "token_required"      // mode rotate, and no refresh token was presented
	ReasonTokenInvalid       Reason = "token_invalid"       // the refresh token is not ours, or may not be used here and now
	ReasonTokenSuperseded    Reason = "token_superseded"    // a newer refresh token is in use already; fork and stale
	ReasonTokenReused        Reason = "token_reused"        // two parties hold one token: the session was ended
	ReasonHomeserverRequired Reason = "homeserver_required" // only the session's homeserver may do this
	ReasonPolicy             Reason = "policy"              // unless the policy gives another one
)

// Outcome is the result of Step: what to answer, and what to store first.
type Outcome struct {
	// Reason is empty if the request is in order: a discharge may be issued,
	// or the logout took effect (perhaps earlier).
	Reason Reason

	// Ended is set with Reason if the session is over. Without it the refusal is
	// about the request, and the session is as it was. End is how the session
	// ended, or with NextUser how all of the user's did.
	Ended bool
	End   End

	// NotYet is set instead of Reason when nothing can be decided: the caveat
	// or a mark comes from the future, so one of two clocks is wrong.
	NotYet     bool
	FutureMark int64 // with NotYet: the mark, Unix ms; 0: it is the caveat

	// NeedsTime and NeedsDevice are set instead of all else when State.Now or
	// State.OnDevice is missing: few requests need them.
	NeedsTime, NeedsDevice bool

	Action policy.Action
	Replay policy.Replay

	// Session is the record as it stood, or would stand at activation; what
	// a policy sees. Nil if there is nothing to see.
	Session *Record

	// Next is the record to store; nil: leave what is there. NextUser and
	// NextDevice likewise.
	Next       *Record
	NextUser   *Revocation
	NextDevice *DeviceRecord

	// Replaces holds the sessions that an activation ends.
	Replaces []caveat.SessionID

	// Touch is set when Next only notes that the session was used, which
	// the answer does not depend on.
	Touch bool

	// Issue is the refresh token to hand out, in mode rotate. Its epoch is
	// also the discharge's.
	Issue *Token

	// Ends is when the session ends whatever happens; 0: no such time.
	Ends int64

	// LostWrite is set when a token from the future shows that the store
	// has lost what this service once wrote.
	LostWrite bool
}

// Revokes reports whether the outcome ends the session.
func (o *Outcome) Revokes() bool { return o.Next != nil && o.Next.Over() || o.NextUser != nil }

// refuse is the outcome for a request that is refused while the session is as
// it was.
func refuse(r Reason) Outcome { return Outcome{Reason: r} }

// over is the outcome for a session that has ended.
func over(e End) Outcome { return Outcome{Reason: e.Reason(), Ended: true, End: e} }

// Step decides about one event.
func Step(s State, e *Event, l Limits) Outcome {
	c := e.Condition
	if c.Minted > e.Now+l.Skew.Milliseconds() {
		return Outcome{NotYet: true}
	}
	if c.Mode == caveat.ModeHeld && !e.ByHomeserver {
		return refuse(ReasonHomeserverRequired)
	}
	if e.Retired { // it cannot be verified any more, so it shows nothing but how the session ended
		if s.Session != nil {
			if end, is := ended(s); is {
				return over(end)
			}
		}
		return over(End{Soft: true, Cause: CauseRevoked, At: e.Now})
	}
	// Neither the caveat of a session alone nor, in mode open, anything its
	// holder has reaches other sessions of the user.
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
	// The caveat alone of a rotating session shows nothing more than that a
	// token is needed, whatever became of the session.
	if c.Mode == caveat.ModeRotate && e.Token == nil &&
		!(inWindow(e, l) && (r == nil || !r.Over() && r.unused())) {
		return refuse(ReasonTokenRequired)
	}
	if r == nil {
		return stepUnknown(s, e, l)
	}
	if end, is := ended(s); is {
		return over(end)
	}
	// A second macaroon of one session in another mode would be a way around
	// the first one's.
	if r.Mode != c.Mode {
		return refuse(ReasonTokenInvalid)
	}
	if end, is := endsNow(s, e, l); is {
		o := over(end)
		o.Next = r.ended(end)
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

// stepUnknown decides about a session without a record: it may be activated
// now, or its activation was lost, or it is over and forgotten.
func stepUnknown(s State, e *Event, l Limits) Outcome {
	c := e.Condition
	// A token was issued at a time, and the session lived then; otherwise it
	// is as old as its caveat.
	since := c.Minted
	if e.Token != nil {
		since = e.Token.Nonce.issued(c.Minted-l.Skew.Milliseconds(), e.Now+l.Skew.Milliseconds())
	}
	if since == 0 { // a token of an earlier version, which has no time
		return over(End{Soft: true, Cause: CauseRevoked, At: c.Minted})
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
		return over(End{Soft: true, Cause: CauseLost, At: s.Losses.Missing})
	}
	ends := endsAt(c, l)
	if ends > 0 && e.Now >= ends {
		return over(End{Soft: true, Cause: CauseExpired, At: ends})
	}
	if !inWindow(e, l) {
		return over(End{Soft: true, Cause: CauseRevoked, At: c.Minted})
	}
	if c.Device != "" && !s.Listed {
		return Outcome{NeedsDevice: true}
	}
	if e.Token == nil {
		return activate(s, e, ends)
	}
	// The activation was lost. It is made again, but takes no device over, nor
	// follows one that took the device since.
	if d := s.Device; d.Current != c.Session && (len(s.OnDevice) > 0 || d.Current != (caveat.SessionID{}) && d.Since+1000 > since) {
		return over(End{Soft: true, Cause: CauseReplaced, At: max(d.Since, c.Minted)})
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

// activate makes the record of a session at its first discharge, and makes the
// session its device's current one.
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

// rotate finds the presented token in the history of a live session.
func rotate(o *Outcome, e *Event, l Limits) {
	r := o.Session
	t := Token{} // epoch 0: nothing was presented, and Step has allowed that
	if e.Token != nil {
		t = *e.Token
	}
	conf, succ := r.Confirmed, r.Successor
	same := e.by(r.Last)
	switch {
	case t == Token{Epoch: conf.Epoch, Nonce: conf.Nonce} && exchangeable(succ, same, e.Now):
		if succ == nil { // by an earlier version, which forgot the token before after a report
			o.succeed(e, conf)
			return
		}
		o.Replay = policy.ReplayRetry
		again := t.Epoch == 0 || succ.Tag == e.Tag && e.Tag != RequestTag{} || within(succ.IssuedAt, e.Now, l.Grace)
		if same && again {
			o.Issue = &Token{Epoch: conf.Epoch + 1, Nonce: succ.Nonce}
			return
		}
		o.succeed(e, conf)

	case t.Epoch > conf.Epoch:
		// Of the next epoch, it is an unused successor. If it is of a later
		// one, or newer than any in the record, the store went back in time:
		// only this service can have made it, so its holder is believed.
		issued := t.Nonce.issued(r.Created, e.Now+l.Skew.Milliseconds())
		o.LostWrite = t.Epoch > conf.Epoch+1 || succ == nil || t.Nonce != succ.Nonce && issued > succ.IssuedAt
		at := max(e.Now, conf.At)
		if succ != nil {
			at = max(at, succ.IssuedAt)
		}
		o.succeed(e, Confirmed{Epoch: t.Epoch, Nonce: t.Nonce, At: at})

	case same:
		o.Replay, o.Reason = replayKind(t, conf), ReasonTokenSuperseded

	default:
		o.Replay = policy.ReplayReuse
		*o = o.ended(End{Soft: true, Cause: CauseReuse, At: e.Now})
	}
}

// unused reports whether no refresh token of the session has been used yet.
func (r *Record) unused() bool {
	return r.Confirmed.Epoch == 0 && (r.Successor == nil || r.Successor.Reported == 0)
}

// exchangeable reports whether the confirmed token can be exchanged. Once its
// successor was reported as used, the party of the last use has that one. Another
// party may be the same client on its other network, whose request was under way;
// what it is handed is a new successor, which was not reported.
func exchangeable(s *Successor, same bool, now int64) bool {
	switch {
	case s == nil || s.Reported == 0:
		return true
	case same:
		return false
	}
	return within(max(s.Reported, s.IssuedAt), now, reportSlack)
}

// replayKind returns what a token is that was replaced.
func replayKind(t Token, conf Confirmed) policy.Replay {
	if t.Epoch == conf.Epoch && t.Nonce != conf.Nonce {
		return policy.ReplayFork
	}
	return policy.ReplayStale
}

// ended returns the outcome that ends its session.
func (o Outcome) ended(end End) Outcome {
	o.Reason, o.Ended, o.End = end.Reason(), true, end
	o.Next, o.NextDevice, o.Replaces, o.Issue = o.Session.ended(end), nil, nil, nil
	return o
}

// succeed confirms c and makes it another successor.
func (o *Outcome) succeed(e *Event, c Confirmed) {
	next := o.Session.used(e)
	issued := max(e.Now, c.At)
	if c.Epoch > 0 {
		if t := c.Nonce.issued(next.Created, issued+time.Hour.Milliseconds()); t >= issued {
			issued = t + 1
		}
	}
	if s := next.Successor; s != nil && issued <= s.IssuedAt {
		issued = s.IssuedAt + 1
	}
	next.Confirmed = c
	next.Successor = &Successor{Nonce: nonceAt(issued), IssuedAt: issued, Tag: e.Tag}
	o.Next = next
	o.Issue = &Token{Epoch: c.Epoch + 1, Nonce: next.Successor.Nonce}
}

// stepLogout asks for what a refresh would ask for. Of a session that lives, the
// token may also be the one before the confirmed one, so that a client can log
// out whose last reply was lost; for all of the user's sessions it may not.
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
		case mark > 0: // everything is revoked already, this session with it
			o.End = end
		case e.Kind == EventLogoutAll:
			if o := stepUnknown(s, e, l); o.Reason != "" || o.NotYet || o.NeedsTime || o.NeedsDevice {
				return o
			}
			return logoutAll(s, e)
		case fresh:
			o.Next = (&Record{Device: c.Device}).ended(End{Cause: CauseLogout, At: e.Now})
		}
		return o
	}
	if end, is := ended(s); is {
		if e.Kind == EventLogoutAll && r.Over() {
			// A session that is over does not speak for the user's others.
			return over(end)
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
		o.Session, o.Next = r, r.ended(end)
	case e.Kind == EventLogoutAll:
		return logoutAll(s, e)
	default:
		o.Next = r.ended(End{Cause: CauseLogout, At: e.Now})
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
	next := s.User.raised(max(s.Now, e.Condition.Minted), caveat.SessionID{}, End{Cause: CauseLogout})
	return Outcome{Session: s.Session, NextUser: &next, End: End{Cause: CauseLogout, At: next.At}}
}

// Seen takes a homeserver's report that it saw a discharge of this epoch in use:
// the client has what it was sent. The returned record is to be stored; nil:
// there is nothing new in it.
func Seen(s State, epoch uint64, now int64) *Record {
	r := s.Session
	if r == nil || r.Successor == nil || r.Successor.Reported > 0 || epoch != r.Confirmed.Epoch+1 {
		return nil
	}
	if _, over := ended(s); over {
		return nil
	}
	next, successor := *r, *r.Successor
	successor.report(now, next.Confirmed)
	next.Successor = &successor
	return &next
}

// Expires is when the store may forget a record of this session: when it has
// ended by itself, but not while its caveat could still activate it again.
// A hard end is remembered for Limits.Remember. Zero means never.
func Expires(r *Record, c *caveat.Condition, l Limits) time.Time {
	keep := c.Minted + (l.Activation + l.Skew + tombstoneSlack).Milliseconds()
	if r.Over() {
		keep = max(keep, r.End.At+tombstoneSlack.Milliseconds())
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

// ended returns how a session with a record ended, if that was decided.
func ended(s State) (End, bool) {
	r := s.Session
	if r.Over() {
		return r.End, true
	}
	var first End
	found := false
	if r.UserGeneration < s.User.Generation {
		first, found = s.User.endAbove(r.UserGeneration), true
	}
	if r.HomeserverGeneration < s.Homeserver.Generation {
		if end := s.Homeserver.endAbove(r.HomeserverGeneration); !found || end.At < first.At {
			first, found = end, true
		}
	}
	if !found && r.Created < s.Losses.All {
		first, found = End{Soft: true, Cause: CauseLost, At: s.Losses.All}, true
	}
	return first, found
}

// endsNow returns how a live session ends at this moment, if it does.
func endsNow(s State, e *Event, l Limits) (End, bool) {
	c, r := e.Condition, s.Session
	if ends := endsAt(c, l); ends > 0 && e.Now >= ends || idle(r, e.Now, l) {
		return End{Soft: true, Cause: CauseExpired, At: e.Now}, true
	}
	// Sessions that an earlier version activated since are not recorded there.
	d := &s.Device
	if d.Current != (caveat.SessionID{}) && d.Current != c.Session && r.Device == c.Device && r.Created < d.Since {
		return End{Soft: true, Cause: CauseReplaced, At: e.Now}, true
	}
	return End{}, false
}

// covered returns the end and the time of the oldest mark that covers a session
// without a record, which lived at a time no earlier than since; 0: there is
// none.
func covered(s State, c *caveat.Condition, since int64) (end End, mark int64) {
	consider := func(at int64, by End) {
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

// idle reports whether the session has gone without a discharge for too long.
func idle(r *Record, now int64, l Limits) bool {
	return l.Idle > 0 && now >= r.LastUsed+l.Idle.Milliseconds()
}

func inWindow(e *Event, l Limits) bool {
	return within(e.Condition.Minted, e.Now, l.Activation)
}

// within reports whether now is no later than d after t. A clock set back
// does not make it false.
func within(t, now int64, d time.Duration) bool { return now-t <= d.Milliseconds() }

// endsAt is when the session ends whatever happens; 0: no such time.
func endsAt(c *caveat.Condition, l Limits) int64 {
	ends := c.Expires
	if l.Absolute > 0 {
		if a := c.Minted + l.Absolute.Milliseconds(); ends == 0 || a < ends {
			ends = a
		}
	}
	return ends
}

// used returns a copy of the record, used now by the event's party.
func (r *Record) used(e *Event) *Record {
	next := *r
	next.LastUsed = max(r.LastUsed, e.Now/1000*1000)
	next.Last = e.From.cut()
	return &next
}

// ended returns the tombstone of the record.
func (r *Record) ended(end End) *Record {
	end.At = max(end.At, 1000) / 1000 * 1000
	return &Record{End: end, Device: r.Device, Confirmed: Confirmed{Epoch: r.Confirmed.Epoch}}
}
