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
//	         │                                  │
//	         │ logout, in time                  │ logout, revocation, reuse
//	         ▼                                  ▼
//	       ended ◀──────────────────────────── ended ──▶ (no record), refused for good
//
// All of a user's sessions are revoked by generation, which an activated session
// has in its record. One that is not activated yet has only the time at which it
// was minted, and that is by its homeserver's clock, while the revocation is by
// the service's. So a session that a homeserver mints with a clock ahead, shortly
// before such a revocation, seems to be from after it, and can still be
// activated. Shortly is no more than the clock is ahead. That is not much more
// than Limits.Skew without being noticed: what is minted with a clock further
// ahead can only be used when the rest of the time has gone by, so that nobody
// gets in at once. To cut at the revocation's time plus Skew would end each login
// of the minute after "log out everywhere", which is when people log in again,
// and nothing that the service sees tells the two apart. The session whose own
// caveat comes with the logout is ended in any case, and whoever revokes one
// session by its id ends it whatever the clocks say.
//
// A missing record means "not yet activated" inside the activation window and
// "gone" after it. So a tombstone need only outlive the window, and a session
// that has been forgotten can never come back.

// Limits are the lengths of time that bound a session. They are the same for
// all sessions of a service.
type Limits struct {
	Activation time.Duration // from minting to the first discharge, at the latest
	Grace      time.Duration // how long a lost reply or two racing tabs are taken for just that
	Idle       time.Duration // without a discharge for this long, the session ends; 0: never
	Absolute   time.Duration // from minting, the session ends; 0: never
	Skew       time.Duration // how far ahead a homeserver's clock may be
}

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
// and when everything of its user and of its homeserver was last revoked.
type State struct {
	Session    *Record
	User       Revocation
	Homeserver Revocation
}

// EventKind is what somebody wants.
type EventKind uint8

// The events.
const (
	EventDischarge EventKind = iota + 1 // activation or refresh
	EventLogout                         // this session
	EventLogoutAll                      // every session of the user
)

// Event is one request, with everything about it that matters here already
// verified: the condition was sealed by a registered homeserver, the token's
// signature and its holder's restrictions hold.
type Event struct {
	Kind         EventKind
	Now          int64 // Unix ms
	Condition    *caveat.Condition
	Token        *Token // nil: none was presented
	ByHomeserver bool   // the session's own homeserver asks, with its API key
	Tag          RequestTag
	From         Party
	Nonce        Nonce // fresh, for a successor that may be made
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
	ReasonSessionEnded       Reason = "session_ended"       // logged out, revoked, or never heard of
	ReasonSessionExpired     Reason = "session_expired"     // too old, or idle for too long
	ReasonTokenRequired      Reason = "token_required"      // mode rotate, and no refresh token was presented
	ReasonTokenInvalid       Reason = "token_invalid"       // the refresh token is not ours, or may not be used here and now
	ReasonTokenSuperseded    Reason = "token_superseded"    // a newer refresh token is in use already; fork and stale
	ReasonTokenReused        Reason = "token_reused"        // two parties hold one token: the session was ended
	ReasonHomeserverRequired Reason = "homeserver_required" // mode held, and someone else asks
	ReasonPolicy             Reason = "policy"              // unless the policy says something better
)

// Outcome is what Step found: what to answer, and what to store first.
type Outcome struct {
	// Reason is empty if the request is in order: a discharge may be issued,
	// or the logout took effect (perhaps earlier).
	Reason     Reason
	SoftLogout bool // with Reason: logging in again may keep device keys

	// NotYet is set instead of Reason when nothing can be said: the caveat
	// comes from the future, so one of two clocks is wrong.
	NotYet bool

	Action policy.Action
	Replay policy.Replay

	// Session is the record as it stood, or would stand at activation; what
	// a policy sees. Nil if there is nothing to see.
	Session *Record

	// Next is the record to store; nil: leave what is there. NextUser
	// likewise.
	Next     *Record
	NextUser *Revocation

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
func (o *Outcome) Revokes() bool { return o.Next != nil && o.Next.Ended > 0 || o.NextUser != nil }

// Step decides about one event.
func Step(s State, e *Event, l Limits) Outcome {
	c := e.Condition
	if c.Minted > e.Now+l.Skew.Milliseconds() {
		return Outcome{NotYet: true}
	}
	if c.Mode == caveat.ModeHeld && !e.ByHomeserver {
		return Outcome{Reason: ReasonHomeserverRequired}
	}
	if e.Kind == EventDischarge {
		return stepDischarge(s, e, l)
	}
	return stepLogout(s, e, l)
}

func stepDischarge(s State, e *Event, l Limits) Outcome {
	c := e.Condition
	fresh := inWindow(e, l)
	needsToken := c.Mode == caveat.ModeRotate && e.Token == nil
	// Whoever shows only the caveat of a rotating session learns nothing
	// more than that, whatever became of the session.
	if needsToken && !(fresh && (s.Session == nil || s.Session.Ended == 0 && s.Session.Confirmed.Epoch == 0)) {
		return Outcome{Reason: ReasonTokenRequired}
	}
	ends := endsAt(c, l)
	if ends > 0 && e.Now >= ends {
		return Outcome{Reason: ReasonSessionExpired, SoftLogout: true}
	}
	r := s.Session
	if r == nil {
		if !fresh || e.Token != nil || revokedBefore(s, c.Minted) {
			return Outcome{Reason: ReasonSessionEnded}
		}
		return activate(s, e, ends)
	}
	// A second macaroon of one session in another mode would be a way around
	// the first one's.
	if !alive(s) || r.Mode != c.Mode {
		return Outcome{Reason: ReasonSessionEnded}
	}
	if idle(r, e, l) {
		return Outcome{Reason: ReasonSessionExpired, SoftLogout: true}
	}
	o := Outcome{Action: policy.ActionRefresh, Replay: policy.ReplayNone, Session: r, Ends: ends}
	if r.Mode == caveat.ModeRotate {
		rotate(&o, e, l)
	} else if e.Now-r.LastUsed >= l.touch().Milliseconds() {
		o.Next, o.Touch = r.used(e), true
	}
	return o
}

// activate makes the record of a session at its first discharge.
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
		r.Successor = &Successor{Nonce: e.Nonce, IssuedAt: e.Now, Tag: e.Tag}
		o.Issue = &Token{Epoch: 1, Nonce: e.Nonce}
	}
	return o
}

// rotate finds the presented token in the history of a live session. Order is
// by epoch alone; clocks only measure grace.
func rotate(o *Outcome, e *Event, l Limits) {
	r := o.Session
	t := Token{} // epoch 0: nothing was presented, and Step has allowed that
	if e.Token != nil {
		t = *e.Token
	}
	conf, succ := r.Confirmed, r.Successor
	switch {
	case t.Epoch == conf.Epoch && t.Nonce == conf.Nonce:
		if succ == nil { // its use was reported by the homeserver
			o.succeed(e, conf)
			return
		}
		o.Replay = policy.ReplayRetry
		same := succ.Tag == e.Tag && e.Tag != RequestTag{}
		if same || within(succ.IssuedAt, e.Now, l.Grace) {
			o.Issue = &Token{Epoch: conf.Epoch + 1, Nonce: succ.Nonce}
			return
		}
		o.succeed(e, conf)

	case succ != nil && t.Epoch == conf.Epoch+1 && t.Nonce == succ.Nonce:
		o.succeed(e, Confirmed{Epoch: t.Epoch, Nonce: t.Nonce, At: max(e.Now, succ.IssuedAt)})

	case t.Epoch > conf.Epoch+1, t.Epoch == conf.Epoch+1 && succ == nil:
		// Only this service can have made it, and it is not in the record:
		// the store went back in time. The client is in the right.
		o.LostWrite = true
		o.succeed(e, Confirmed{Epoch: t.Epoch, Nonce: t.Nonce, At: max(e.Now, conf.At)})

	case t.Epoch == conf.Epoch+1, t.Epoch == conf.Epoch && t.Epoch > 0:
		o.replayed(policy.ReplayFork, e)

	case t.Epoch+1 == conf.Epoch && within(conf.At, e.Now, l.Grace):
		o.replayed(policy.ReplayStale, e)

	default:
		o.Replay = policy.ReplayReuse
		o.Reason = ReasonTokenReused
		o.Next = r.ended(e.Now)
	}
}

// succeed confirms c and makes it a new successor; one that was there is dead.
func (o *Outcome) succeed(e *Event, c Confirmed) {
	next := o.Session.used(e)
	next.Confirmed = c
	next.Successor = &Successor{Nonce: e.Nonce, IssuedAt: max(e.Now, c.At), Tag: e.Tag}
	o.Next = next
	o.Issue = &Token{Epoch: c.Epoch + 1, Nonce: e.Nonce}
}

// replayed answers a token that somebody else may hold too: from the party
// that used the session last it is a race, from any other a theft.
func (o *Outcome) replayed(kind policy.Replay, e *Event) {
	o.Replay = kind
	o.Reason = ReasonTokenSuperseded
	if !o.Session.Last.same(e.From.cut()) {
		o.Reason = ReasonTokenReused
		o.Next = o.Session.ended(e.Now)
	}
}

// stepLogout asks for what a refresh would ask for, but takes any token of the
// session: whoever holds an old one could end the session by presenting it
// anyway.
func stepLogout(s State, e *Event, l Limits) Outcome {
	c, r := e.Condition, s.Session
	fresh := inWindow(e, l)
	first := r == nil || r.Confirmed.Epoch == 0
	if c.Mode == caveat.ModeRotate && e.Token == nil && !(fresh && first) {
		return Outcome{Reason: ReasonTokenRequired}
	}
	o := Outcome{Session: r}
	revoked := r != nil && r.Ended == 0 && !alive(s) || r == nil && revokedBefore(s, c.Minted)
	switch {
	case revoked: // everything is revoked already, this session with it
	case e.Kind == EventLogoutAll && over(r, e, l):
		// A session that is over does not speak for the user's others.
		o.Reason = ReasonSessionEnded
	case e.Kind == EventLogoutAll:
		o.NextUser = &Revocation{Generation: s.User.Generation + 1, At: max(e.Now, s.User.At+1, c.Minted)}
	case r == nil && fresh:
		o.Next = (&Record{}).ended(e.Now)
	case r != nil && r.Ended == 0:
		o.Next = r.ended(e.Now)
	}
	return o
}

// Seen takes a homeserver's word that it saw a discharge of this epoch in use:
// the client has what it was sent. The returned record is to be stored; nil:
// there is nothing new in it.
func Seen(s State, epoch uint64, now int64) *Record {
	r := s.Session
	if r == nil || !alive(s) || r.Successor == nil || epoch != r.Confirmed.Epoch+1 {
		return nil
	}
	next := *r
	next.Confirmed = Confirmed{Epoch: epoch, Nonce: r.Successor.Nonce, At: max(now, r.Successor.IssuedAt)}
	next.Successor = nil
	return &next
}

// Expires is when the store may forget a record of this session: when it has
// ended by itself, but not while its caveat could still activate it again.
// Zero means never.
func Expires(r *Record, c *caveat.Condition, l Limits) time.Time {
	keep := c.Minted + (l.Activation + l.Skew + tombstoneSlack).Milliseconds()
	if r.Ended > 0 {
		return time.UnixMilli(max(keep, r.Ended+tombstoneSlack.Milliseconds()))
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

// alive reports whether the session has a record that nothing has ended.
func alive(s State) bool {
	r := s.Session
	return r.Ended == 0 &&
		r.UserGeneration >= s.User.Generation && r.HomeserverGeneration >= s.Homeserver.Generation
}

// revokedBefore reports whether everything was revoked when an unactivated
// session had been minted already.
func revokedBefore(s State, minted int64) bool {
	return minted <= s.User.At || minted <= s.Homeserver.At
}

// over reports whether a session has ended or run out, or was never there.
func over(r *Record, e *Event, l Limits) bool {
	if ends := endsAt(e.Condition, l); ends > 0 && e.Now >= ends {
		return true
	}
	if r == nil {
		return !inWindow(e, l)
	}
	return r.Ended > 0 || idle(r, e, l)
}

// idle reports whether the session has gone without a discharge for too long.
func idle(r *Record, e *Event, l Limits) bool {
	return l.Idle > 0 && e.Now >= r.LastUsed+l.Idle.Milliseconds()
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
func (r *Record) ended(now int64) *Record {
	return &Record{Ended: max(now, 1000) / 1000 * 1000, Confirmed: Confirmed{Epoch: r.Confirmed.Epoch}}
}
