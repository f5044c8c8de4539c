package storetest

import (
	"math"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/discharger/discharger/discharger/session"
)

// The model of a user's sessions as clients see them. A history of the real
// service is linearizable if all calls can be ordered so that each took effect
// at one moment between its start and its end, and the model gives the same
// results. An undecided call can have taken effect at any moment after its
// start, or never.

// modelSession is one session. A client's token is known by its bytes.
type modelSession struct {
	dead      bool
	open      bool   // mode open: no tokens
	epoch     uint64 // of confirmed
	confirmed string // the token that is known to have arrived
	successor string // the one that was given for it; unknown: to a call that was not answered
	reported  bool   // its discharge was seen in use: the confirmed token is superseded
}

const unknown = "?"

// modelState is a user's sessions.
type modelState [3]modelSession

type callKind uint8

const (
	callRefresh callKind = iota + 1
	callLogout
	callLogoutOthers // all but the session
	callSeen
)

type modelCall struct {
	user    int
	kind    callKind
	session int
	token   string
	epoch   uint64
}

type modelAnswer struct {
	undecided bool
	reason    session.Reason // of a refusal
	token     string         // of a grant, in mode rotate
}

// linearModel is the model; forgetful is one of a store that may take back
// refreshes, but never a logout, of sessions that one client alone uses. Such a
// client is always let in while its session lives.
func linearModel(initial map[int]modelState, forgetful bool) porcupine.Model {
	nm := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byUser := make(map[int][]porcupine.Operation)
			for _, op := range history {
				u := op.Input.(modelCall).user
				byUser[u] = append(byUser[u], op)
			}
			var out [][]porcupine.Operation
			for _, ops := range byUser {
				out = append(out, ops)
			}
			return out
		},
		Init: func() []any {
			return []any{nil} // the user is not known before the first call
		},
		Step: func(state, input, output any) []any {
			call, answer := input.(modelCall), output.(modelAnswer)
			st, ok := state.(modelState)
			if !ok {
				st = initial[call.user]
			}
			var next []any
			if answer.undecided {
				next = append(next, st)
			}
			for _, s := range step(st, call, answer, forgetful) {
				next = append(next, s)
			}
			return next
		},
	}
	return nm.ToModel()
}

// step returns the states that the call can lead to with this answer, or, if it
// was not decided, by taking effect all the same.
func step(st modelState, c modelCall, a modelAnswer, forgetful bool) []modelState {
	s := &st[c.session]
	switch c.kind {
	case callLogout:
		s.dead = true
	case callLogoutOthers:
		for i := range st {
			st[i].dead = st[i].dead || i != c.session
		}
	case callSeen:
		s.reported = s.reported || !s.dead && s.successor != "" && c.epoch == s.epoch+1
	case callRefresh:
		if !refresh(s, c, a, forgetful) {
			return nil
		}
	}
	return []modelState{st}
}

// refresh reports whether a refresh can have been answered like this, and
// changes the session.
func refresh(s *modelSession, c modelCall, a modelAnswer, forgetful bool) bool {
	current := s.open || forgetful || c.token == s.confirmed && !s.reported || c.token == s.successor
	switch {
	case a.undecided && s.dead:
		return true
	case a.reason == session.ReasonSessionEnded:
		return s.dead
	case a.reason == session.ReasonTokenSuperseded:
		return !s.dead && !current
	case a.reason == session.ReasonTokenReused || a.undecided && !current:
		was := s.dead
		s.dead = true
		return !was && !current
	case a.reason != "", s.dead, !current:
		return false
	case s.open || forgetful:
		return true
	}
	given := a.token
	if a.undecided {
		given = unknown
	}
	switch {
	case c.token == s.successor:
		s.epoch, s.confirmed, s.successor, s.reported = s.epoch+1, s.successor, given, false
	case s.successor == "" || s.successor == unknown && !a.undecided:
		s.successor = given
	case a.undecided:
	default:
		return given == s.successor
	}
	return true
}

// recorder writes a history down.
type recorder struct {
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

func (r *recorder) call(client int, c modelCall, do func() modelAnswer) modelAnswer {
	begun := time.Since(r.start).Nanoseconds()
	a := do()
	ended := time.Since(r.start).Nanoseconds()
	if a.undecided {
		ended = math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Input: c, Call: begun, Output: a, Return: ended})
	return a
}

// judge compares the history with the model.
func (r *recorder) judge(t testing.TB, initial map[int]modelState, forgetful bool) porcupine.CheckResult {
	t.Helper()
	counts := make(map[string]int)
	for _, op := range r.ops {
		switch a := op.Output.(modelAnswer); {
		case a.undecided:
			counts["undecided"]++
		case a.reason != "":
			counts[string(a.reason)]++
		default:
			counts["done"]++
		}
	}
	result := porcupine.CheckOperationsTimeout(linearModel(initial, forgetful), r.ops, 2*time.Minute)
	t.Logf("%d calls, %v: %s", len(r.ops), counts, result)
	return result
}
