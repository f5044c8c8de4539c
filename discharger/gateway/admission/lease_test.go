package admission

import (
	"net/netip"
	"testing"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// Open claims leave room in the queue for the user's own requests, and those of one
// address for the claims of others.
func TestLeaseQueue(t *testing.T) {
	t.Parallel()
	stranger := Claim{Open: true, Peer: netip.MustParsePrefix("192.0.2.1/32")}
	other := Claim{Open: true, Peer: netip.MustParsePrefix("2001:db8::/64")}
	local := Claim{Open: true}
	for _, c := range []struct {
		name   string
		before map[Claim]int
		next   Claim
		ok     bool
	}{
		{"first", nil, stranger, true},
		{"one address", map[Claim]int{stranger: MaxOpenQueuePeer}, stranger, false},
		{"another address", map[Claim]int{stranger: MaxOpenQueuePeer}, other, true},
		{"all logins", map[Claim]int{local: maxOpenQueue}, other, false},
		{"a token beside all logins", map[Claim]int{local: maxOpenQueue}, Claim{}, true},
		{"all", map[Claim]int{{}: MaxLeaseQueue}, Claim{}, false},
		{"a login beside tokens", map[Claim]int{{}: MaxLeaseQueue}, other, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e := lease{peers: clientaddr.Tally{}}
			for b, n := range c.before {
				for range n {
					if !e.admits(b) {
						t.Fatalf("%v is refused", b)
					}
					e.count(b, 1)
				}
			}
			if ok := e.admits(c.next); ok != c.ok {
				t.Errorf("admitted: %v", ok)
			}
			for b, n := range c.before {
				e.count(b, -n)
			}
			if e.users != 0 || e.open != 0 || len(e.peers) != 0 {
				t.Errorf("left: %d, %d, %v", e.users, e.open, e.peers)
			}
		})
	}
}
