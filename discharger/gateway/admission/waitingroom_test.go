package admission

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
)

// The waiting room has room for some of one address, for some of one site, and for some without a token.
func TestWaitingRoom(t *testing.T) {
	t.Parallel()
	r := NewWaitingRoom()
	addr := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::%d", i, i+1)) }
	var exits []func()
	enter := func(a netip.Addr, open bool) error {
		exit, err := r.Enter(Peer(a), open)
		if err == nil {
			exits = append(exits, exit)
		}
		return err
	}
	for i := range waitersPerClient {
		if err := enter(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)), false); err != nil {
			t.Fatal(err)
		} // of one /64
	}
	if err := enter(netip.MustParseAddr("2001:db8::ffff"), false); !errors.Is(err, ErrFull) {
		t.Errorf("one address: %v", err)
	}
	for i := range waitersPerSite - waitersPerClient {
		if err := enter(netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::1", 1+i)), false); err != nil {
			t.Fatal(err)
		} // of one /48
	}
	if err := enter(netip.MustParseAddr("2001:db8:0:ffff::1"), false); !errors.Is(err, ErrFull) {
		t.Errorf("one site: %v", err)
	}
	for i := range maxOpenWaiters {
		if err := enter(addr(1+i/waitersPerClient), true); err != nil {
			t.Fatal(err)
		}
	}
	if err := enter(addr(1000), true); !errors.Is(err, ErrFull) {
		t.Errorf("without tokens: %v", err)
	}
	for i := range maxWaiters - maxOpenWaiters - waitersPerSite {
		if err := enter(addr(100+i/waitersPerClient), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := enter(addr(1000), false); !errors.Is(err, ErrFull) {
		t.Errorf("in all: %v", err)
	}
	for _, exit := range exits {
		exit()
	}
	if r.all != 0 || r.open != 0 || len(r.clients) != 0 {
		t.Errorf("left: %d, %d, %d", r.all, r.open, len(r.clients))
	}
}
