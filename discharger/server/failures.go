package server

import (
	"net/netip"
	"sync"
	"time"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// failures counts failed requests by network, so that guessing clients are slowed
// down. Counting restarts every failureWindow. Valid requests are never delayed.
//
// A homeserver's failures count for the client's address that it names, apart from
// those of other homeservers and of direct clients. Its own requests do not count.
type failures struct {
	now    func() time.Time
	mu     sync.Mutex
	count  map[offender]int
	closes time.Time
}

// offender is the source of failures.
type offender struct {
	homeserver string // that sent the request; empty: the client itself
	network    netip.Prefix
}

const (
	failureWindow = 10 * time.Second
	failureLimit  = 200     // in one window
	failureAddrs  = 1 << 16 // addresses counted in one window; further ones are not
)

func newFailures(now func() time.Time) *failures {
	return &failures{now: now, count: make(map[offender]int)}
}

// offender returns the source for which a failure counts; with an invalid network, none.
func (v *visit) offender() offender {
	if v.homeserver != "" {
		return offender{v.homeserver, clientaddr.Network(v.client)}
	}
	return offender{network: v.network}
}

// note counts one failure, and returns how long the client has to wait; 0: not at all.
func (f *failures) note(o offender) time.Duration {
	if !o.network.IsValid() {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if !now.Before(f.closes) || f.closes.Sub(now) > failureWindow {
		clear(f.count)
		f.closes = now.Add(failureWindow)
	}
	if _, known := f.count[o]; !known && len(f.count) >= failureAddrs {
		return 0
	}
	f.count[o]++
	if f.count[o] > failureLimit {
		return f.closes.Sub(now)
	}
	return 0
}
