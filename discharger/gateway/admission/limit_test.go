package admission

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// limited is a limiter with a clock of its own, and small bounds.
type limited struct {
	*Limiter
	time time.Time
}

func newLimited() *limited {
	l := &limited{time: time.Unix(1_800_000_000, 0)}
	l.Limiter = NewLimiter(Limits{Requests: 5, RequestsPerAddress: 2, Lasting: 4, LastingPerAddress: 3}, func() time.Time { return l.time })
	return l
}

// takeAll takes places for requests from addresses, and returns the taken ones.
func (l *limited) takeAll(t *testing.T, s Span, want string, from ...string) (taken []*Place) {
	t.Helper()
	got := ""
	for _, a := range from {
		var addr netip.Addr
		if a != "" {
			addr = netip.MustParseAddr(a)
		}
		p := new(Place)
		if l.Take(p, Peer(addr), s) {
			got += "y"
			taken = append(taken, p)
		} else {
			got += "n"
		}
	}
	if got != want {
		t.Errorf("%v: got %s, want %s", from, got, want)
	}
	return taken
}

const (
	addrA, addrB, addrC = "192.0.2.1", "192.0.2.2", "192.0.2.3"
	addrSix             = "2001:db8::1"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		span Span
		want string
		from []string
	}{
		{"one address", Brief, "yyn", []string{addrA, addrA, addrA}},
		{"others beside it", Brief, "yynyy", []string{addrA, addrA, addrA, addrB, addrB}},
		{"all", Brief, "yyyyyn", []string{addrA, addrA, addrB, addrB, addrC, addrC}},
		{"IPv6 counts by /64", Brief, "yyny", []string{addrSix, "2001:db8::ffff:1:2:3", "2001:db8::2", "2001:db8:1::1"}},
		{"and by /48", Brief, "yyny", []string{addrSix, "2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:1::1"}},
		{"loopback has no bound but that of all", Brief, "yyyyyn", []string{"127.0.0.1", "127.0.0.1", "127.0.0.1", "::1", "127.0.0.1", addrA}},
		{"private networks likewise", Brief, "yyyyyn", []string{"10.0.0.1", "10.0.0.1", "10.0.0.1", "fd00::1", "192.168.0.1", "10.0.0.1"}},
		{"a socket likewise", Brief, "yyyyyn", []string{"", "", "", "", "", ""}},
		{"lasting ones of one address count as brief beyond", Lasting, "yyyyyn", []string{addrA, addrA, addrA, addrA, addrA, addrA}},
		{"all lasting ones", Lasting, "yyyyyyyyyn", []string{"", "", "", "", "", "", "", "", "", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLimited()
			all := l.takeAll(t, c.span, c.want, c.from...)
			for _, p := range all {
				p.Release()
				p.Release()
			}
			l.empty(t)
			for _, p := range l.takeAll(t, c.span, c.want, c.from...) {
				p.Release()
			}
		})
	}
}

// empty checks that nothing is counted and nothing is kept.
func (l *limited) empty(t *testing.T) {
	t.Helper()
	if l.all != [spans]int{} || len(l.peers[Brief])+len(l.peers[Lasting]) > 0 || l.brief.after != &l.brief || l.brief.before != &l.brief {
		t.Errorf("left: %v %v %v %v", l.all, l.peers, l.brief.after, l.brief.before)
	}
}

// A brief request that lasts makes room for others, as long as there is room among
// the lasting ones.
func TestLastingRequestsMakeRoom(t *testing.T) {
	t.Parallel()
	l := newLimited()
	var all []*Place
	take := func(want string, from ...string) {
		t.Helper()
		all = append(all, l.takeAll(t, Brief, want, from...)...)
	}
	take("yyn", addrA, addrA, addrA)
	l.time = l.time.Add(lastingAfter)
	take("yyn", addrA, addrA, addrA) // 2 lasting
	l.time = l.time.Add(lastingAfter)
	take("yn", addrA, addrA) // 3 lasting, as many as it may have
	l.time = l.time.Add(lastingAfter)
	take("nyy", addrA, addrB, addrB)
	if l.Busy(Lasting) != 3 || l.Busy(Brief) != 4 {
		t.Errorf("%d lasting, %d brief", l.Busy(Lasting), l.Busy(Brief))
	}
	for _, p := range all {
		p.Release()
	}
	l.empty(t)
}

// A request that waits gives its place back, and takes it again.
func TestPlaceGivenBack(t *testing.T) {
	t.Parallel()
	l := newLimited()
	all := l.takeAll(t, Brief, "yy", addrA, addrA)
	all[0].Release()
	other := l.takeAll(t, Brief, "yn", addrA, addrA)
	if all[0].Acquire() {
		t.Error("there was no place")
	}
	all[0].Release() // at the end of the request: it has none
	other[0].Release()
	for range 2 { // of which the second takes none
		if !all[0].Acquire() {
			t.Error("there is a place")
		}
	}
	all[0].Release()
	all[1].Release()
	l.empty(t)
	var none Place
	if !none.Acquire() {
		t.Error("a request without a limiter has no bound")
	}
	none.Release()
}

// Counts are right in any order of taken and released places.
func TestLimiterCounts(t *testing.T) {
	t.Parallel()
	l := newLimited()
	r := rand.New(rand.NewPCG(1, 2))
	addrs := []netip.Addr{netip.MustParseAddr(addrA), netip.MustParseAddr(addrB), netip.MustParseAddr(addrSix), {}}
	all := make([]Place, 40)
	for range 20_000 {
		p := &all[r.IntN(len(all))]
		switch r.IntN(4) {
		case 0:
			if !p.taken {
				l.Take(p, Peer(addrs[r.IntN(len(addrs))]), Span(r.IntN(2)))
			}
		case 1:
			p.Acquire()
		case 2:
			p.Release()
		case 3:
			l.time = l.time.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		}
		var want [spans]int
		for i := range all {
			if all[i].taken {
				want[all[i].span]++
			}
		}
		if l.all != want || l.all[Brief] > 5 || l.all[Lasting] > 4 {
			t.Fatalf("counted %v, want %v", l.all, want)
		}
	}
	for i := range all {
		all[i].Release()
	}
	l.empty(t)
}
