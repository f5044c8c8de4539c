package server

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// failures counts failed requests by address, so that somebody who tries
// things out is slowed down. Requests in order are neither counted nor held
// up. Counting starts anew every failureWindow; IPv6 counts by /64.
type failures struct {
	now    func() time.Time
	mu     sync.Mutex
	count  map[netip.Prefix]int
	closes time.Time
}

const (
	failureWindow = 10 * time.Second
	failureLimit  = 200     // in one window
	failureAddrs  = 1 << 16 // addresses counted in one window; further ones are not
)

func newFailures(now func() time.Time) *failures {
	return &failures{now: now, count: make(map[netip.Prefix]int)}
}

// note counts one failure. It returns how long to stay away, 0 if there were
// not too many.
func (f *failures) note(ip string) time.Duration {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return 0
	}
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, _ := addr.Prefix(bits)
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if !now.Before(f.closes) || f.closes.Sub(now) > failureWindow {
		clear(f.count)
		f.closes = now.Add(failureWindow)
	}
	if _, known := f.count[p]; !known && len(f.count) >= failureAddrs {
		return 0
	}
	f.count[p]++
	if f.count[p] > failureLimit {
		return f.closes.Sub(now)
	}
	return 0
}

func ipNet(p netip.Prefix) *net.IPNet {
	p = p.Masked()
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
