package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestFailoverRepeats counts the repeated events of a feed after a failover
// that lost some.
func TestFailoverRepeats(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := redistest.StartSentinel(t)
	var peers []*peer
	var stores []store.Store
	for range 3 {
		p := openPeer(t, sentinelConfig(s), "")
		peers, stores = append(peers, p), append(stores, p.Store)
	}
	is := storetest.NewIssuer(t, stores...)
	// Events of the last hour.
	const hour = 100
	for i := range hour {
		now := time.Now().UnixMilli()
		events, err := revocation.Lines([]revocation.Revocation{{
			Kind: revocation.KindSession, Homeserver: storetest.IssuerHomeserver, User: "@early:hs", Session: storetest.NewSession(), At: now,
			Soft: true, Notice: revocation.Notice{Until: revocation.Lifetime{}.Until(now), Again: true},
		}})
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("%d-%d", time.Now().Add(-time.Hour).UnixMilli(), i)
		s.Primary(t).Do(t, "xadd", redis.FeedKey(tagKey, storetest.IssuerHomeserver), id, "u", events[0].Until, "e", events[0].Data)
	}
	const kept, lost, others = 40, 4, 10
	devices := make(chan *storetest.Device, kept+lost+3*others)
	var wg sync.WaitGroup
	login := func(user string) *storetest.Device {
		d := is.Login(user)
		if err := d.Refresh(ctx); err != nil {
			t.Errorf("log in: %v", err)
		}
		return d
	}
	for i := range kept + lost {
		wg.Go(func() { devices <- login(fmt.Sprintf("@user%d:hs", i)) })
	}
	wg.Wait()
	for range kept {
		d := <-devices
		wg.Go(func() {
			if err := d.Logout(ctx); err != nil {
				t.Errorf("log out: %v", err)
			}
		})
	}
	for i := range others {
		wg.Go(func() {
			login(fmt.Sprintf("@many%d:hs", i))
			if err := login(fmt.Sprintf("@many%d:hs", i)).LogoutOthers(ctx); err != nil {
				t.Errorf("log out others: %v", err)
			}
		})
	}
	wg.Wait()
	for _, p := range peers {
		redistest.Eventually(t, "every process has received all", func() bool { return len(storetest.All(t, p.journal)) >= kept+others })
	}
	f := &storetest.Fixture{Store: peers[0].Store}
	was, _ := f.MustRead(t, storetest.IssuerHomeserver, "")
	s.Cut(t)
	for range lost {
		if err := (<-devices).Logout(ctx); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range peers {
		redistest.Eventually(t, "every process has received all", func() bool { return len(storetest.All(t, p.journal)) >= kept+others+lost })
	}
	heard, _ := f.MustRead(t, storetest.IssuerHomeserver, was[len(was)-1].Position)
	if len(heard) != lost {
		t.Fatalf("a homeserver receives %d logouts, want %d", len(heard), lost)
	}
	s.Primary(t).Kill(t)
	s.Failover(t)
	missing := uint64(0)
	for _, p := range peers {
		redistest.Eventually(t, "the process works again", func() bool {
			return !p.JournalStats().LastFailover.IsZero() && p.Ready(ctx) == nil
		})
		missing += p.JournalStats().Missing
	}
	now, _ := f.MustRead(t, storetest.IssuerHomeserver, "")
	again := len(now) - len(was)
	said := make(map[string]int)
	for _, e := range now {
		said[about(t, e.Data)]++
	}
	t.Logf("%d events before, %d lost, %d afterwards about %d ends; %d were missing", len(was), lost, len(now), len(said), missing)
	if again < lost {
		t.Errorf("of %d lost events, %d were published", lost, again)
	}
	if again > 2*lost {
		t.Errorf("after a failover that lost %d events, %d were published", lost, again)
	}
	// The homeserver had read all of it, and goes on.
	repeated, gap := f.MustRead(t, storetest.IssuerHomeserver, heard[lost-1].Position)
	t.Logf("a homeserver that had read %d events gets %d again", len(was)+lost, len(repeated))
	if gap || len(repeated) > len(now)-hour {
		t.Errorf("a homeserver that had read everything gets %d of %d events again, with gap %v", len(repeated), len(now), gap)
	}
	for _, e := range now[len(was):] {
		if !slices.ContainsFunc(repeated, func(r store.FeedEntry) bool { return r.Position == e.Position }) {
			t.Errorf("%s is left out", e.Data)
		}
	}
}

// about returns the subject of an event, without its cause and time.
func about(t *testing.T, data []byte) string {
	t.Helper()
	e, err := revocation.ParseEvent(data)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{e.Session.String(), e.User, fmt.Sprint(e.At.UnixMilli() * int64(min(len(e.Except), 1)))}, " ")
}
