package simulate

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Honest are the results of sessions without a thief.
type Honest struct {
	Sessions  int
	Refreshes int               // granted
	Hard      int               // sessions that ended hard
	Out       map[Situation]int // clients that lost their session, by situation
	ByKind    [kinds]int        // the same clients, by kind
}

// Wrongful returns the number of clients that lost their session.
func (h *Honest) Wrongful() int {
	n := 0
	for _, out := range h.Out {
		n += out
	}
	return n
}

// rate returns the number of clients that lost their session per 10⁵ refreshes.
func (h *Honest) rate() float64 { return 1e5 * float64(h.Wrongful()) / float64(max(h.Refreshes, 1)) }

// refreshesPerSession bounds the refreshes of a session.
const refreshesPerSession = 200

// RunHonest simulates sessions of all kinds of clients until the number of refreshes
// is reached.
func RunHonest(rules Rules, refreshes int, rates Rates, seed uint64) Honest {
	h := Honest{Out: make(map[Situation]int)}
	for i := uint64(0); h.Refreshes < refreshes; i++ {
		w := newWorld(rand.New(rand.NewPCG(seed, i)), rates, rules.New())
		c := newClient(w, Kind(i%uint64(kinds)))
		w.run(start+365*24*hour, func() bool { return c.out != "" || c.done >= refreshesPerSession })
		h.Sessions++
		h.Refreshes += c.done
		if w.hard {
			h.Hard++
		}
		if c.out != "" {
			h.Out[c.out]++
			h.ByKind[c.kind]++
		}
	}
	return h
}

// Theft are the results of sessions with a thief of one rhythm.
type Theft struct {
	Rhythm   Rhythm
	Sessions int
	Hard     int // sessions that ended hard
	Returned int // thieves that presented a token from an exchange
	Noticed  int // of these, thieves whose session was over by the owner's second next refresh
	Over     int // sessions that were over in the end
	OwnerOut int // sessions whose owner was refused and whose thief was not
	Gained   int // discharges of all thieves
}

// theftLasts bounds the time of a thief.
const theftLasts = 24 * hour

// RunTheft simulates sessions with a thief.
func RunTheft(rules Rules, rhythm Rhythm, sessions int, rates Rates, seed uint64) Theft {
	r := Theft{Rhythm: rhythm, Sessions: sessions}
	for i := range uint64(sessions) {
		w := newWorld(rand.New(rand.NewPCG(seed, 1<<40|uint64(rhythm)<<32|i)), rates, rules.New())
		c := newClient(w, Kind(i%uint64(kinds)))
		before := int(w.between(2, 20))
		w.run(start+365*24*hour, func() bool { return c.out != "" || c.done >= before })
		if c.out != "" || w.over {
			r.Sessions--
			continue
		}
		t := steal(w, c, rhythm)
		w.run(w.now+theftLasts, func() bool { return w.over })
		r.Gained += t.gained
		if w.over {
			r.Over++
		} else if c.out != "" && !t.stopped {
			r.OwnerOut++
		}
		if w.hard {
			r.Hard++
		}
		if t.returned >= 0 && (w.over || c.out != "" || c.started >= t.returned+2) {
			r.Returned++
			if w.over && w.overAt <= t.returned+2 {
				r.Noticed++
			}
		}
	}
	return r
}

// LostReply reports whether a session survives a lost reply, if the client repeats
// its request after a time in milliseconds, from its own address or another one.
func LostReply(rules Rules, after int64, elsewhere bool) bool {
	w := newWorld(rand.New(rand.NewPCG(1, 1)), Rates{}, rules.New())
	c := &client{w: w, agents: []*agent{{name: "client"}}}
	w.client, c.agents[0].c = c, c
	c.move()
	a := c.agents[0]
	token := w.present(c.token, a.from(), c.tag()).Token
	for range 3 {
		w.server.Use(token, w.now)
		w.now += ttl
		token = w.present(token, a.from(), c.tag()).Token
	}
	w.server.Use(token, w.now)
	w.now += ttl
	lost := w.present(token, a.from(), c.tag())
	w.now += after
	if elsewhere {
		c.move()
	}
	again := w.present(token, a.from(), c.tag())
	return lost.granted() && again.granted() && w.present(again.Token, a.from(), c.tag()).granted()
}

// Row is the result of one kind of rules.
type Row struct {
	Rules  Rules
	Honest Honest
	Stable Honest // without failovers
	Thefts []Theft
	Lost   [3]bool // reply lost, and the request repeated after 2 s; 1 min; 1 h, from elsewhere
}

// Run returns all results under one kind of rules.
func Run(rules Rules, refreshes, thefts int, rates Rates, seed uint64) Row {
	stable := rates
	stable.Failover = 0
	row := Row{
		Rules: rules, Honest: RunHonest(rules, refreshes, rates, seed), Stable: RunHonest(rules, refreshes, stable, seed),
		Lost: [3]bool{LostReply(rules, 2*second, false), LostReply(rules, minute, false), LostReply(rules, hour, true)},
	}
	for _, rhythm := range Rhythms() {
		row.Thefts = append(row.Thefts, RunTheft(rules, rhythm, thefts, rates, seed))
	}
	return row
}

// Detection returns the share of returned thieves that were noticed by the owner's
// second next refresh; 1 if fewer than one in fifty returned, since the rules then
// give a thief no token to return with.
func (t *Theft) Detection() float64 {
	if t.Returned*50 < t.Sessions {
		return 1
	}
	return float64(t.Noticed) / float64(t.Returned)
}

// Worst returns the smallest detection of all rhythms.
func (r *Row) Worst() float64 {
	worst := 1.0
	for i := range r.Thefts {
		worst = min(worst, r.Thefts[i].Detection())
	}
	return worst
}

// Table returns rows as a table in Markdown.
func Table(rows []Row) string {
	var b strings.Builder
	b.WriteString("| rules | reply lost, repeated after 2 s / 1 min / 1 h elsewhere | honest clients thrown out, per 10⁵ refreshes: no failovers / with failovers | thief noticed by the owner's second next refresh: worst rhythm / mean | discharges a thief gains in 24 h: mean / worst rhythm | owner out, thief stays |\n")
	b.WriteString("|---|---|---|---|---|---|\n")
	for i := range rows {
		r := &rows[i]
		var returned, noticed, gained, sessions, left int
		worst := 0.0
		for _, t := range r.Thefts {
			returned, noticed, gained = returned+t.Returned, noticed+t.Noticed, gained+t.Gained
			sessions, left = sessions+t.Sessions, left+t.OwnerOut
			worst = max(worst, float64(t.Gained)/float64(max(t.Sessions, 1)))
		}
		outcome := func(ok bool) string {
			if ok {
				return "goes on"
			}
			return "out"
		}
		fmt.Fprintf(&b, "| %s | %s / %s / %s | %.1f / %.1f | %.1f %% / %.1f %% | %.1f / %.1f | %.1f %% |\n", r.Rules.Name,
			outcome(r.Lost[0]), outcome(r.Lost[1]), outcome(r.Lost[2]),
			r.Stable.rate(), r.Honest.rate(),
			100*r.Worst(), 100*float64(noticed)/float64(max(returned, 1)),
			float64(gained)/float64(max(sessions, 1)), worst, 100*float64(left)/float64(max(sessions, 1)))
	}
	return b.String()
}

// RhythmTable returns the thefts under one kind of rules as a table in Markdown.
func RhythmTable(thefts []Theft) string {
	var b strings.Builder
	b.WriteString("| rhythm | came back with a token from an exchange | noticed by the owner's second next refresh | over at last | discharges gained, mean |\n|---|---|---|---|---|\n")
	for i := range thefts {
		t := &thefts[i]
		fmt.Fprintf(&b, "| %s | %d of %d | %.2f %% | %.1f %% | %.2f |\n", t.Rhythm, t.Returned, t.Sessions, 100*t.Detection(),
			100*float64(t.Over)/float64(max(t.Sessions, 1)), float64(t.Gained)/float64(max(t.Sessions, 1)))
	}
	return b.String()
}
