package session

import (
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/policy"
)

// rotate sets the outcome for the token presented in a live session; without one,
// Step has allowed epoch 0.
func rotate(o *Outcome, e *Event, l Limits) {
	r := o.Session
	t := Token{}
	if e.Token != nil {
		t = *e.Token
	}
	conf, succ := r.Confirmed, r.Successor
	same := e.by(r.Last)
	switch {
	case t == Token{Epoch: conf.Epoch, Nonce: conf.Nonce} && exchangeable(succ, same, e.Now):
		if succ == nil { // a report to an earlier version dropped the successor
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
		// A token of the next epoch is an unused successor. If it is of a later epoch,
		// or newer than any in the record, the store lost a write: the token was signed
		// here, so it is accepted.
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

// unused reports whether no refresh token of the session has been used.
func (r *Record) unused() bool {
	return r.Confirmed.Epoch == 0 && (r.Successor == nil || r.Successor.Reported == 0)
}

// exchangeable reports whether the confirmed token can be exchanged. After a report
// that its successor is in use, the party of the last use has the successor. Another
// party may be the same client on its other network, whose request was under way.
func exchangeable(s *Successor, same bool, now int64) bool {
	switch {
	case s == nil || s.Reported == 0:
		return true
	case same:
		return false
	}
	return within(max(s.Reported, s.IssuedAt), now, reportSlack)
}

// replayKind returns the kind of a replaced token.
func replayKind(t Token, conf Confirmed) policy.Replay {
	if t.Epoch == conf.Epoch && t.Nonce != conf.Nonce {
		return policy.ReplayFork
	}
	return policy.ReplayStale
}

// succeed confirms c and issues another successor of it.
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

// Seen returns the record to store after a homeserver's report that a discharge of
// this epoch is in use, so that its refresh token has arrived; nil: unchanged.
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
