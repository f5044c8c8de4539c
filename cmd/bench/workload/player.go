// Package workload has the players of the benchmark: the requests of clients and
// homeservers to a discharger, and those of OAuth clients to the reference fosite.
package workload

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/discharger/caveat"
)

// Repeat is a player that sends fixed requests in turn.
type Repeat struct {
	Requests [][]byte
	at       int
}

// Repeat fetches discharges of sessions in turn, with the caveat alone or, in mode
// held, the API key.
func (l *Logins) Repeat(sessions int, mode caveat.Mode) (*Repeat, error) {
	all, err := l.newSome(sessions, mode)
	if err != nil {
		return nil, err
	}
	a := &Repeat{}
	for _, s := range all {
		a.Requests = append(a.Requests, l.AppendDischarge(nil, s, ""))
	}
	return a, nil
}

// Next implements [load.Player].
func (a *Repeat) Next(b []byte) ([]byte, load.Kind, error) {
	a.at = (a.at + 1) % len(a.Requests)
	return append(b, a.Requests[a.at]...), load.Discharge, nil
}

// Answered implements [load.Player].
func (a *Repeat) Answered(status int, body []byte) error { return Expect(http.StatusOK, status, body) }

// Expect returns an error if a status is not the expected one.
func Expect(want, status int, body []byte) error {
	if status == want {
		return nil
	}
	return fmt.Errorf("status %d instead of %d: %.200s", status, want, body)
}

// Refresh is a player that refreshes sessions in turn with their refresh tokens.
type Refresh struct {
	logins   *Logins
	sessions []*Login
	at       int
}

// Refresh refreshes sessions in mode rotate.
func (l *Logins) Refresh(sessions int) (*Refresh, error) {
	all, err := l.newSome(sessions, caveat.ModeRotate)
	return &Refresh{logins: l, sessions: all}, err
}

// Next implements [load.Player].
func (r *Refresh) Next(b []byte) ([]byte, load.Kind, error) {
	r.at = (r.at + 1) % len(r.sessions)
	s := r.sessions[r.at]
	k := load.Discharge
	if s.token == "" {
		k = load.Activate
	}
	return r.logins.AppendDischarge(b, s, s.token), k, nil
}

// Answered implements [load.Player].
func (r *Refresh) Answered(status int, body []byte) error {
	if err := Expect(http.StatusOK, status, body); err != nil {
		return err
	}
	return r.sessions[r.at].advance(body)
}

// advance keeps the new refresh token of an answer.
func (s *Login) advance(body []byte) error {
	if err := advanceToken(&s.token, body, `"RefreshToken":"`); err != nil {
		return err
	}
	if s.first == "" {
		s.first = s.token
	}
	s.tries++
	return nil
}

// LoginLogout is a player that activates a session and logs it out, again and
// again.
type LoginLogout struct {
	Logins *Logins
	now    *Login
}

// Next implements [load.Player].
func (l *LoginLogout) Next(b []byte) ([]byte, load.Kind, error) {
	if l.now != nil {
		return l.Logins.appendLogout(b, l.now), load.Logout, nil
	}
	var err error
	if l.now, err = l.Logins.New(caveat.ModeOpen); err != nil {
		return nil, load.Activate, err
	}
	return l.Logins.AppendDischarge(b, l.now, ""), load.Activate, nil
}

// Answered implements [load.Player].
func (l *LoginLogout) Answered(status int, body []byte) error {
	if bytes.Equal(body, []byte("{}")) { // the answer to a logout
		l.now = nil
	}
	return Expect(http.StatusOK, status, body)
}

// Day is a player of many sessions in the proportions of a day: nearly all requests
// are refreshes, few sessions end, and a superseded refresh token appears now and
// then.
type Day struct {
	logins   *Logins
	sessions []*Login
	random   *rand.Rand

	at   int       // the session of the last request
	kind load.Kind // of the last request
}

// Logouts and reused refresh tokens among a thousand requests of a day.
const (
	logoutsInThousand = 10
	reusesInThousand  = 1
)

// NewDay returns a player of sessions of all modes: of ten, six held, three rotate
// and one open. Each is minted at its first request.
func (l *Logins) NewDay(sessions int, seed uint64) *Day {
	return &Day{logins: l, sessions: make([]*Login, sessions), random: rand.New(rand.NewPCG(seed, 2))}
}

// begin mints the session at an index.
func (d *Day) begin(i int) (err error) {
	mode := caveat.ModeHeld
	switch i % 10 {
	case 1, 4, 7:
		mode = caveat.ModeRotate
	case 9:
		mode = caveat.ModeOpen
	}
	d.sessions[i], err = d.logins.New(mode)
	return err
}

// Next implements [load.Player].
func (d *Day) Next(b []byte) ([]byte, load.Kind, error) {
	d.at, d.kind = d.random.IntN(len(d.sessions)), load.Discharge
	if d.sessions[d.at] == nil {
		if err := d.begin(d.at); err != nil {
			return nil, load.Activate, err
		}
	}
	s := d.sessions[d.at]
	if s.tries == 0 {
		d.kind = load.Activate
		return d.logins.AppendDischarge(b, s, ""), d.kind, nil
	}
	switch chance := d.random.IntN(1000); {
	case chance < logoutsInThousand:
		d.kind = load.Logout
		return d.logins.appendLogout(b, s), d.kind, nil
	case chance < logoutsInThousand+reusesInThousand && s.tries > 3 && s.mode == caveat.ModeRotate:
		d.kind = load.Reuse
		return d.logins.AppendDischarge(b, s, s.first), d.kind, nil
	}
	return d.logins.AppendDischarge(b, s, s.token), d.kind, nil
}

// Answered implements [load.Player].
func (d *Day) Answered(status int, body []byte) error {
	s := d.sessions[d.at]
	switch d.kind {
	case load.Logout:
		if err := Expect(http.StatusOK, status, body); err != nil {
			return err
		}
		d.sessions[d.at] = nil
		return nil
	case load.Reuse:
		if err := Expect(http.StatusUnauthorized, status, body); err != nil {
			return err
		}
		d.sessions[d.at] = nil
		return nil
	}
	if err := Expect(http.StatusOK, status, body); err != nil {
		return err
	}
	if s.mode != caveat.ModeRotate {
		s.tries++
		return nil
	}
	return s.advance(body)
}
