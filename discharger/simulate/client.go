package simulate

import (
	"encoding/binary"
	"net/netip"

	"github.com/discharger/discharger/discharger/session"
)

// Kind is a kind of honest client.
type Kind int

// The kinds.
const (
	Tabs  Kind = iota // three tabs of a browser, which share their storage
	App               // an app and its extension, which share their storage
	Ahead             // a client that refreshes ahead of time
	Bot               // a program that never moves
	Phone             // a phone that moves all the time
	kinds
)

// moves is the probability that a kind changes its network before a refresh.
var moves = [kinds]float64{Tabs: 0.01, App: 0.05, Ahead: 0.03, Bot: 0.001, Phone: 0.2}

// Situation is the circumstances in which a client without a thief lost its session.
type Situation string

// The situations.
const (
	// SleptCopy: an app was suspended in the middle of a refresh, another agent
	// refreshed twice meanwhile, and the app repeats its request when it wakes.
	SleptCopy Situation = "a copy that slept over two refreshes and woke elsewhere"
	// LostActivation: the store lost the session's first seconds, and the client
	// came back after the activation window.
	LostActivation Situation = "the store lost the activation, and the client came back after the window"
	// Unnamed: another situation.
	Unnamed Situation = "other"
)

// client is an honest client.
type client struct {
	w       *world
	kind    Kind
	addrs   [2]netip.Addr // IPv4 and IPv6
	agents  []*agent
	token   session.Token // in the storage that the agents share
	due     int64         // when the discharge in the storage expires
	locked  int64         // when an agent's lock on the storage of an app expires
	tags    uint32
	started int   // refreshes
	done    int   // refreshes that were granted
	slept   *bool // attempt.slept of the request that ended the session
	out     Situation
}

// agent is a part of a client that refreshes by itself: a tab, an app, an extension.
type agent struct {
	c      *client
	name   string
	dual   bool // it uses IPv6 as often as IPv4
	busy   bool
	asleep bool
	waking []func() // calls that wait for the agent to wake
}

func newClient(w *world, kind Kind) *client {
	c := &client{w: w, kind: kind, addrs: [2]netip.Addr{w.address(false), w.address(true)}}
	w.client = c
	add := func(name string, dual bool) *agent {
		a := &agent{c: c, name: name, dual: dual}
		c.agents = append(c.agents, a)
		return a
	}
	switch kind {
	case Tabs:
		for range 3 {
			add("Mozilla/5.0", true)
		}
	case App:
		add("Element X/26.11", true)
		add("NSE/26.11", true)
	default:
		add("mautrix-go/0.30", kind == Ahead)
	}
	c.agents[0].try(&attempt{tag: c.tag()})
	return c
}

// begin starts the agents' schedules, once there is a token.
func (c *client) begin() {
	for i, a := range c.agents {
		switch {
		case c.kind == App && i == 0:
			c.w.after(0, a.awake)
		case c.kind == App:
			c.w.after(0, a.push)
		default:
			a.next()
		}
	}
}

// next schedules the agent's next refresh, if the token is still due then.
func (a *agent) next() {
	c, w := a.c, a.c.w
	at := c.due
	switch c.kind {
	case Tabs: // they wake at once
		at = c.due - 30*second + w.between(-second, second)
	case Ahead:
		at = c.due - ttl*w.between(20, 50)/100
	case Phone:
		at = c.due + w.between(0, 10*minute)
	}
	due := c.due
	w.after(at-w.now, func() {
		if c.due != due { // another agent was faster
			a.next()
			return
		}
		a.refresh()
	})
}

// awake runs an app: in use for minutes, then suspended for hours.
func (a *agent) awake() {
	w := a.c.w
	a.asleep = false
	waking := a.waking
	a.waking = nil
	for _, f := range waking {
		f()
	}
	sleeps := w.now + w.between(10*second, 10*minute)
	for t := w.now; t < sleeps; t += minute {
		w.after(t-w.now, a.ifDue)
	}
	w.after(sleeps-w.now, func() {
		if a.busy { // the system lets it finish for some seconds
			w.after(25*second, a.sleep)
			return
		}
		a.sleep()
	})
}

// sleep suspends an app, possibly in the middle of a request.
func (a *agent) sleep() {
	w := a.c.w
	a.asleep = true
	w.after(w.between(5*minute, 12*hour), func() {
		if w.chance(0.4) {
			a.c.move()
		}
		a.awake()
	})
}

// push runs an extension, which is active when there is a push.
func (a *agent) push() {
	a.ifDue()
	a.c.w.after(a.c.w.between(second, 20*minute), a.push)
}

func (a *agent) ifDue() {
	if a.asleep || a.c.w.now < a.c.due-30*second {
		return
	}
	a.refresh()
}

func (c *client) move() { c.addrs = [2]netip.Addr{c.w.address(false), c.w.address(true)} }

func (c *client) tag() (t session.RequestTag) {
	c.tags++
	binary.BigEndian.PutUint32(t[:], c.tags)
	t[0] |= 1
	return t
}

// attempt is one request of one refresh.
type attempt struct {
	token session.Token
	tag   session.RequestTag
	n     int  // number of attempts before
	slept bool // the agent slept since it read the token
	over  bool // answered or timed out
}

// refresh starts a refresh with the token in the storage.
func (a *agent) refresh() {
	c, w := a.c, a.c.w
	if a.busy || c.out != "" {
		return
	}
	if c.kind == App { // its agents take a lock, which expires
		if w.now < c.locked {
			w.after(second, a.ifDue)
			return
		}
		c.locked = w.now + minute
	}
	if w.chance(moves[c.kind]) {
		c.move()
	}
	c.started++
	a.try(&attempt{token: c.token, tag: c.tag()})
}

func (a *agent) from() session.Party {
	addr := a.c.addrs[0]
	if a.dual && a.c.w.chance(0.5) {
		addr = a.c.addrs[1]
	}
	return session.Party{Addr: addr, Client: a.name}
}

// try sends a request, and repeats it if there is no answer in time.
func (a *agent) try(at *attempt) {
	w := a.c.w
	a.busy = true
	from := a.from()
	if !w.chance(w.rates.LostRequest) {
		w.after(w.between(20, 300), func() { a.arrive(at, from) })
	}
	w.after(timeout, func() { a.awakened(at, func() { a.repeat(at) }) })
}

// awakened calls f now, or when the agent wakes.
func (a *agent) awakened(at *attempt, f func()) {
	if !a.asleep {
		f()
		return
	}
	a.waking = append(a.waking, func() {
		at.slept = true
		f()
	})
}

// arrive lets the server answer a request, and sends the reply.
func (a *agent) arrive(at *attempt, from session.Party) {
	w := a.c.w
	ans := w.present(at.token, from, at.tag)
	if w.answered != nil {
		w.answered(ans)
	}
	if ans.Ended && a.c.slept == nil {
		a.c.slept = &at.slept
	}
	back := w.between(20, 300)
	switch {
	case w.chance(w.rates.LostReply):
		return
	case w.chance(w.rates.LateReply):
		back = w.between(second, 45*second)
	}
	w.after(back, func() { a.reply(at, ans) })
}

// repeat sends the request again, or gives up until the next refresh.
func (a *agent) repeat(at *attempt) {
	w := a.c.w
	if at.over || a.c.out != "" {
		return
	}
	at.over = true
	if at.n == 4 {
		a.busy = false
		w.after(minute, a.again)
		return
	}
	again := &attempt{token: at.token, tag: at.tag, n: at.n + 1, slept: at.slept}
	if w.chance(0.25) {
		again.tag = a.c.tag()
	}
	if at.slept { // most HTTP libraries have timed out, and the app starts over
		if w.chance(0.25) {
			a.try(again)
			return
		}
		a.busy = false
		a.again()
		return
	}
	w.after(w.between(second, 5*second), func() { a.awakened(again, func() { a.try(again) }) })
}

// again reads the storage and refreshes, unless another agent has refreshed.
func (a *agent) again() {
	c := a.c
	switch {
	case c.token == session.Token{}:
		a.try(&attempt{tag: c.tag()})
	case c.kind == App:
		a.ifDue()
	case c.w.now < c.due-30*second:
		a.next()
	default:
		a.refresh()
	}
}

// reply processes a reply of the server.
func (a *agent) reply(at *attempt, ans Answer) {
	c, w := a.c, a.c.w
	if at.over || a.asleep || c.out != "" { // the request was given up
		return
	}
	at.over, a.busy, c.locked = true, false, 0
	switch {
	case ans.granted() && w.chance(w.rates.Crash), ans.Again:
		w.after(5*second, a.again)
	case ans.granted():
		first := c.token == session.Token{}
		c.token, c.due = ans.Token, w.now+ttl
		c.done++
		w.use(ans.Token)
		if first {
			c.begin()
		} else if c.kind != App {
			a.next()
		}
	case !ans.Ended && c.token != at.token: // another agent has refreshed
		a.again()
	default:
		switch {
		case at.slept || c.slept != nil && *c.slept:
			c.out = SleptCopy
		case w.unmade:
			c.out = LostActivation
		default:
			c.out = Unnamed
		}
	}
}
