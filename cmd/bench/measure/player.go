package measure

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/discharger/discharger/discharger/caveat"
)

// again asks for discharges of sessions that need nothing but the caveat, or
// the API key, one after the other.
type again struct {
	requests [][]byte
	at       int
}

func (l *logins) again(sessions int, mode caveat.Mode) (*again, error) {
	all, err := l.some(sessions, mode)
	if err != nil {
		return nil, err
	}
	a := &again{}
	for _, s := range all {
		a.requests = append(a.requests, l.appendDischarge(nil, s, ""))
	}
	return a, nil
}

func (a *again) next(b []byte) ([]byte, kind, error) {
	a.at = (a.at + 1) % len(a.requests)
	return append(b, a.requests[a.at]...), kindDischarge, nil
}

func (a *again) answered(status int, body []byte) error { return expect(http.StatusOK, status, body) }

func expect(want, status int, body []byte) error {
	if status == want {
		return nil
	}
	return fmt.Errorf("status %d instead of %d: %.200s", status, want, body)
}

// refreshing refreshes sessions with their refresh tokens, one after the other.
type refreshing struct {
	logins   *logins
	sessions []*login
	at       int
}

func (l *logins) refreshing(sessions int) (*refreshing, error) {
	all, err := l.some(sessions, caveat.ModeRotate)
	return &refreshing{logins: l, sessions: all}, err
}

func (r *refreshing) next(b []byte) ([]byte, kind, error) {
	r.at = (r.at + 1) % len(r.sessions)
	s := r.sessions[r.at]
	k := kindDischarge
	if s.token == "" {
		k = kindActivate
	}
	return r.logins.appendDischarge(b, s, s.token), k, nil
}

func (r *refreshing) answered(status int, body []byte) error {
	if err := expect(http.StatusOK, status, body); err != nil {
		return err
	}
	return r.sessions[r.at].advance(body)
}

// advance takes the new refresh token from an answer.
func (s *login) advance(body []byte) error {
	if err := replace(&s.token, body, `"RefreshToken":"`); err != nil {
		return err
	}
	if s.first == "" {
		s.first = s.token
	}
	s.tries++
	return nil
}

// leaving logs in and out again.
type leaving struct {
	logins *logins
	now    *login
}

func (l *leaving) next(b []byte) ([]byte, kind, error) {
	if l.now != nil {
		return l.logins.appendLogout(b, l.now), kindLogout, nil
	}
	var err error
	if l.now, err = l.logins.new(caveat.ModeOpen); err != nil {
		return nil, kindActivate, err
	}
	return l.logins.appendDischarge(b, l.now, ""), kindActivate, nil
}

func (l *leaving) answered(status int, body []byte) error {
	if bytes.Equal(body, []byte("{}")) { // what a logout is answered with
		l.now = nil
	}
	return expect(http.StatusOK, status, body)
}

// day is what many sessions do, in the proportions of a day: nearly all requests
// are refreshes, few sessions end, and once in a while a refresh token turns up
// that was used before.
type day struct {
	logins   *logins
	sessions []*login
	random   *rand.Rand

	at   int  // the session that was asked for last
	kind kind // and what
}

// What of a thousand requests of a day are something else than a refresh.
const (
	logoutsInThousand = 10
	reusesInThousand  = 1
)

// newDay plays sessions of all modes: six held, three rotating and one open in
// ten. Each is minted when it is used for the first time.
func (l *logins) newDay(sessions int, seed uint64) *day {
	return &day{logins: l, sessions: make([]*login, sessions), random: rand.New(rand.NewPCG(seed, 2))}
}

// begin logs in at a place.
func (d *day) begin(i int) (err error) {
	mode := caveat.ModeHeld
	switch i % 10 {
	case 1, 4, 7:
		mode = caveat.ModeRotate
	case 9:
		mode = caveat.ModeOpen
	}
	d.sessions[i], err = d.logins.new(mode)
	return err
}

func (d *day) next(b []byte) ([]byte, kind, error) {
	d.at, d.kind = d.random.IntN(len(d.sessions)), kindDischarge
	if d.sessions[d.at] == nil {
		if err := d.begin(d.at); err != nil {
			return nil, kindActivate, err
		}
	}
	s := d.sessions[d.at]
	if s.tries == 0 {
		d.kind = kindActivate
		return d.logins.appendDischarge(b, s, ""), d.kind, nil
	}
	switch chance := d.random.IntN(1000); {
	case chance < logoutsInThousand:
		d.kind = kindLogout
		return d.logins.appendLogout(b, s), d.kind, nil
	case chance < logoutsInThousand+reusesInThousand && s.tries > 3 && s.mode == caveat.ModeRotate:
		d.kind = kindReuse
		return d.logins.appendDischarge(b, s, s.first), d.kind, nil
	}
	return d.logins.appendDischarge(b, s, s.token), d.kind, nil
}

func (d *day) answered(status int, body []byte) error {
	s := d.sessions[d.at]
	switch d.kind {
	case kindLogout:
		if err := expect(http.StatusOK, status, body); err != nil {
			return err
		}
		d.sessions[d.at] = nil
		return nil
	case kindReuse:
		if err := expect(http.StatusUnauthorized, status, body); err != nil {
			return err
		}
		d.sessions[d.at] = nil
		return nil
	}
	if err := expect(http.StatusOK, status, body); err != nil {
		return err
	}
	if s.mode != caveat.ModeRotate {
		s.tries++
		return nil
	}
	return s.advance(body)
}
