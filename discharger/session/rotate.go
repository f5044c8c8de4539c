package session

import (
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/policy"
)

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
		*o = o.ended(revocation.End{Soft: true, Cause: revocation.CauseReuse, At: e.Now})
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

// Seen takes a homeserver's report that it saw a discharge of this epoch in use:
// the client has what it was sent. The returned record is to be stored; nil:
// there is nothing new in it.
func Seen(s State, epoch uint64, now int64) *Record {
	r := s.Session
	if r == nil || r.Successor == nil || r.Successor.Reported > 0 || epoch != r.Confirmed.Epoch+1 {
		return nil
	}
	if _, over := s.Ended(); over {
		return nil
	}
	next, successor := *r, *r.Successor
	successor.report(now, next.Confirmed)
	next.Successor = &successor
	return &next
}
