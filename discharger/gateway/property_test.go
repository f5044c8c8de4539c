package gateway

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// history is a random sequence of events at two gateways before one homeserver and one
// service, with the decisions about each session.
type history struct {
	*testing.T
	rand     *rand.Rand
	gateways []*world
	clocks   []*atomic.Int64
	sessions []*played
	hard     map[string]bool // devices whose latest session ended hard
}

// played is a session of a history.
type played struct {
	in     answer
	device string
	hard   bool // decided
}

func newHistory(t *testing.T, seed uint64, dendrite bool) *history {
	h := &history{T: t, rand: rand.New(rand.NewPCG(seed, 1)), hard: make(map[string]bool)}
	for i := range 2 {
		h.clocks = append(h.clocks, new(atomic.Int64))
		step := h.clocks[i]
		if i == 0 {
			h.gateways = append(h.gateways, newWorld(t, like(dendrite), func(w *world) {
				w.limits = session.Limits{Idle: 24 * time.Hour, Absolute: 30 * 24 * time.Hour}
				w.cfg.clock = func() time.Time { return w.now().Add(time.Duration(step.Load())) }
			}))
			continue
		}
		one := h.gateways[0]
		two := &world{t: t, hs: one.hs, service: one.service, log: one.log, cfg: one.cfg}
		two.cfg.Outbox += ".another"
		two.cfg.Registerer = nil
		two.cfg.clock = func() time.Time { return one.now().Add(time.Duration(step.Load())) }
		two.startGateway()
		h.gateways = append(h.gateways, two)
	}
	for _, w := range h.gateways {
		w.offline() // the history triggers background work
	}
	return h
}

func (h *history) gateway() *world { return h.gateways[h.rand.IntN(len(h.gateways))] }

// judge fails if a response ends a session hard without a decision.
func (h *history) judge(what string, s *played, a answer) {
	h.Helper()
	if a.status == 401 && !a.soft() && !s.hard {
		h.Errorf("%s on %s: %s", what, s.device, a.raw)
	}
}

// decide records that a session ended hard. Its device counts as ended unless a later
// session was on it.
func (h *history) decide(s *played) {
	s.hard = true
	latest := s
	for _, other := range h.sessions {
		if other.device == s.device {
			latest = other
		}
	}
	if latest == s {
		h.hard[s.device] = true
	}
}

// step performs one random event.
func (h *history) step() {
	w := h.gateway()
	if len(h.sessions) == 0 || h.rand.IntN(5) == 0 {
		device := fmt.Sprintf("D%d", h.rand.IntN(3))
		a := w.do("POST", pathLogin, "", anyMap{"user": "@u:hs", "device_id": device, "refresh_token": h.rand.IntN(2) == 0})
		if a.status == 200 {
			h.sessions = append(h.sessions, &played{in: a, device: device})
			delete(h.hard, device) // regardless of earlier ends
		}
		return
	}
	s := h.sessions[h.rand.IntN(len(h.sessions))]
	token := s.in.text("access_token")
	switch n := h.rand.IntN(24); {
	case n < 8:
		h.judge("whoami", s, w.do("GET", upstream.PathWhoami, token, nil))
	case n < 13 && s.in.text("refresh_token") != "":
		a := w.refresh(s.in.text("refresh_token"))
		if h.judge("refresh", s, a); a.status == 200 {
			s.in = a
		}
	case n == 13:
		a := w.do("POST", upstream.PathLogout, token, anyMap{})
		if h.judge("logout", s, a); a.status == 200 {
			h.decide(s)
		}
	case n < 16:
		o := wire.RevokeOptions{Soft: n == 14}
		out, err := w.gateway.client.RevokeSession(h.Context(), "@u:hs", w.sessionOf(token), o)
		testkit.NoError(h, err)
		if out.Ended+map[bool]int{true: 1}[out.Marked] > 0 && !o.Soft {
			h.decide(s)
		}
	case n == 16:
		w.restart()
		w.offline()
	case n == 17:
		h.wrongClock(w, s)
	case n == 18:
		h.gateways[0].forward(time.Duration(h.rand.IntN(26)) * time.Hour)
	case n < 21:
		_ = w.gateway.outbox.Reconcile(h.Context(), 0)
	default:
		_ = w.gateway.outbox.Flush(h.Context())
	}
}

// wrongClock shifts a gateway's clock by 40 days and runs every operation but logins,
// for which the service waits for the right time.
func (h *history) wrongClock(w *world, s *played) {
	clock := h.clocks[slices.Index(h.gateways, w)]
	clock.Store([]int64{-1, 1}[h.rand.IntN(2)] * int64(40*24*time.Hour))
	h.judge("whoami by a wrong clock", s, w.do("GET", upstream.PathWhoami, s.in.text("access_token"), nil))
	if s.in.text("refresh_token") != "" {
		h.judge("refresh by a wrong clock", s, w.refresh(s.in.text("refresh_token")))
	}
	_ = w.gateway.outbox.Reconcile(h.Context(), 0)
	_ = w.gateway.outbox.Flush(h.Context())
	clock.Store(0)
}

// check fails if a device was logged out without a decision, or is one of a live
// session.
func (h *history) check(step int) {
	h.Helper()
	hs := h.gateways[0].hs
	hs.set(func(s *stub) {
		for _, device := range s.logouts {
			if !h.hard[device] {
				h.Errorf("step %d: %s was logged out", step, device)
			}
		}
		s.logouts = nil
	})
	live, err := h.gateways[0].gateway.client.Sessions(h.Context(), "@u:hs")
	testkit.NoError(h, err)
	for _, s := range live {
		if !hs.alive(s.Device) {
			h.Errorf("step %d: live session without its device %s", step, s.Device)
		}
	}
}

// No response ends a session hard without a decision, and no device is logged out
// unless its latest session ended hard: with two gateways that miss all events, with
// restarts, and with clocks shifted by 40 days.
func TestNoHardEndWithoutDecision(t *testing.T) {
	t.Parallel()
	homeservers(t, func(t *testing.T, dendrite bool) {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
				t.Parallel()
				h := newHistory(t, seed, dendrite)
				for step := range 150 {
					if h.step(); t.Failed() {
						return
					}
					h.check(step)
				}
			})
		}
	})
}
