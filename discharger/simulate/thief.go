package simulate

import (
	"net/netip"

	"github.com/discharger/discharger/discharger/session"
)

// Rhythm is the times at which a thief uses its copy.
type Rhythm int

// The rhythms.
const (
	InTheWake Rhythm = iota
	JustBefore
	EveryFewMinutes
	FirstThenWait
	OnceAndBack
	AtRandom
	BothTokens
	rhythms
)

var rhythmNames = [rhythms]string{
	"at once, in the owner's wake", "just before the owner", "every few minutes", "first, then it waits",
	"once, and back after hours", "at random", "both tokens, copied later",
}

// String returns the name of the rhythm.
func (r Rhythm) String() string { return rhythmNames[r] }

// Rhythms returns all rhythms.
func Rhythms() []Rhythm {
	out := make([]Rhythm, rhythms)
	for i := range out {
		out[i] = Rhythm(i)
	}
	return out
}

// thief has a copy of the client's storage.
type thief struct {
	w        *world
	c        *client
	rhythm   Rhythm
	token    session.Token
	second   session.Token // with BothTokens: the newer one of the copy
	waits    int           // with FirstThenWait: refreshes of the owner
	gained   int           // discharges
	returned int           // refreshes of the owner before the thief presented a token from an exchange; -1: not yet
	given    bool          // its token is from an exchange
	stopped  bool
}

// party returns a party with another address than the owner and its client name.
func (t *thief) party() session.Party {
	return session.Party{Addr: netip.MustParseAddr("198.51.100.66"), Client: t.c.agents[0].name}
}

// steal copies the client's storage and starts the thief.
func steal(w *world, c *client, rhythm Rhythm) *thief {
	t := &thief{w: w, c: c, rhythm: rhythm, token: c.token, returned: -1}
	switch rhythm {
	case InTheWake:
		w.answered = t.follow
	case JustBefore:
		t.before()
	case EveryFewMinutes:
		t.every(w.between(minute, 15*minute))
	case FirstThenWait:
		t.waits = int(w.between(3, 20))
		w.after(w.between(second, minute), func() { t.act(); t.await(t.c.started + t.waits) })
	case OnceAndBack:
		w.after(w.between(second, 10*minute), func() {
			t.act()
			w.after(w.between(2*hour, 12*hour), func() { t.every(5 * minute) })
		})
	case AtRandom:
		t.random()
	case BothTokens:
		t.both()
	}
	return t
}

// follow acts right after each request of the owner.
func (t *thief) follow(Answer) {
	if !t.stopped {
		t.w.after(t.w.between(50, 2*second), t.act)
	}
}

// before acts some seconds before the owner's next refresh.
func (t *thief) before() {
	if t.stopped {
		return
	}
	due := t.c.due
	t.w.after(due-t.w.now-31*second-t.w.between(second, 5*second), func() {
		t.act()
		t.afterOwner(due)
	})
}

// afterOwner waits for the owner's refresh, and then acts before the next one.
func (t *thief) afterOwner(due int64) {
	t.w.after(minute, func() {
		if t.c.due == due && t.c.out == "" {
			t.afterOwner(due)
			return
		}
		t.before()
	})
}

func (t *thief) every(d int64) {
	t.w.after(t.w.between(d*9/10, d*11/10), func() {
		if t.act(); !t.stopped {
			t.every(d)
		}
	})
}

func (t *thief) random() {
	t.w.after(int64(t.w.rng.ExpFloat64()*float64(10*minute)), func() {
		if t.act(); !t.stopped {
			t.random()
		}
	})
}

// await waits until the owner has refreshed that often, and then acts every 5 minutes.
func (t *thief) await(started int) {
	t.w.after(minute, func() {
		if t.c.started < started && t.c.out == "" {
			t.await(started)
			return
		}
		t.every(5 * minute)
	})
}

// both waits for a refresh of the owner, copies the new token as well, and uses the
// older one first.
func (t *thief) both() {
	if t.c.token == t.token && t.c.out == "" {
		t.w.after(minute, t.both)
		return
	}
	t.second = t.c.token
	t.act()
	t.token, t.given, t.stopped = t.second, false, false
	t.every(5 * minute)
}

// act presents the thief's token, and keeps the successor.
func (t *thief) act() {
	if t.stopped {
		return
	}
	if t.w.chance(t.w.rates.LostRequest) || t.w.chance(t.w.rates.LostReply) {
		return
	}
	if t.given && t.returned < 0 {
		t.returned = t.c.started
	}
	ans := t.w.present(t.token, t.party(), session.RequestTag{})
	switch {
	case ans.granted():
		t.token, t.given = ans.Token, true
		t.gained++
		t.w.use(ans.Token)
	case !ans.Again:
		t.stopped = true
	}
}
