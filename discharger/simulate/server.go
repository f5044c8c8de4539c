package simulate

import (
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/session"
)

// Server is one session at a server.
type Server interface {
	// Present answers a refresh token; of the zero token with the first one.
	Present(t session.Token, r Request) Answer
	// Use records that the discharge issued with a token is in use.
	Use(t session.Token, now int64)
	// Save returns a function that restores the present state.
	Save() (restore func())
}

// Request is a request with a token.
type Request struct {
	Now  int64 // Unix ms
	From session.Party
	Tag  session.RequestTag
}

// Answer is a server's answer. Without Token it is a refusal, which leaves the
// session as it is unless Ended is set.
type Answer struct {
	Token session.Token // zero: none
	Ended bool
	Hard  bool // with Ended: the client discards its keys
	Again bool // undecided: the client repeats the request
}

func (a Answer) granted() bool { return a.Token != session.Token{} }

// Rules are the rules of one kind of server.
type Rules struct {
	Name string
	New  func() Server
}

// Own returns the rules of this service.
func Own() Rules { return Rules{"discharger", func() Server { return newStepper(true) }} }

// OwnUnreported returns the same rules with a homeserver that sends no reports.
func OwnUnreported() Rules {
	return Rules{"discharger, no reports", func() Server { return newStepper(false) }}
}

// stepper is a session under the state machine.
type stepper struct {
	state   session.State
	cond    caveat.Condition
	limits  session.Limits
	reports bool
}

func newStepper(reports bool) *stepper {
	return &stepper{
		cond:    caveat.Condition{Session: caveat.SessionID{1}, User: "@alice:example.org", Device: "D", Minted: start, Mode: caveat.ModeRotate},
		reports: reports,
		limits: session.Limits{
			Activation: 10 * time.Minute, Grace: 10 * time.Second, Skew: time.Minute, Remember: 90 * 24 * time.Hour,
		},
		state: session.State{Listed: true},
	}
}

func (s *stepper) Present(t session.Token, r Request) Answer {
	e := session.Event{Kind: session.EventDischarge, Now: r.Now, Condition: &s.cond, Tag: r.Tag, From: r.From}
	if t != (session.Token{}) {
		e.Token = &t
	}
	s.state.Now = r.Now
	o := session.Step(s.state, &e, s.limits)
	if o.Next != nil {
		s.state.Session = o.Next
	}
	if o.NextDevice != nil {
		s.state.Device = *o.NextDevice
	}
	switch {
	case o.NotYet:
		return Answer{Again: true}
	case o.Issue != nil:
		return Answer{Token: *o.Issue}
	}
	return Answer{Ended: o.Ended, Hard: o.Ended && !o.End.Soft}
}

func (s *stepper) Use(t session.Token, now int64) {
	if !s.reports {
		return
	}
	if next := session.Seen(s.state, t.Epoch, now); next != nil {
		s.state.Session = next
	}
}

func (s *stepper) Save() func() {
	old := s.state // records are never changed in place
	return func() { s.state = old }
}
