package redis_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store/redis"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// lossyServers can lose their last acknowledged writes.
type lossyServers struct {
	config  redis.Config
	mark    func() // later writes are lost
	lose    func()
	recover func()
}

// laggingPrimary fails over to replicas that were cut off.
func laggingPrimary(t *testing.T) lossyServers {
	s := redistest.StartSentinel(t)
	return lossyServers{
		config: sentinelConfig(s), mark: func() { s.Cut(t) },
		lose: func() { s.Primary(t).Kill(t); s.Failover(t) }, recover: func() { s.Rejoin(t) },
	}
}

// oldSnapshot is killed, and starts with its last save.
func oldSnapshot(t *testing.T) lossyServers {
	s := forgetful(t)
	return lossyServers{
		config: s.Config(), mark: func() { s.Do(t, "save") }, lose: func() { s.crash(t) }, recover: func() {},
	}
}

// appendOnlyTail loses the end of its append-only file, which was not on the
// disk.
func appendOnlyTail(t *testing.T) lossyServers {
	s := StartRedis(t, "--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0")
	size := int64(0)
	file := func() string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(s.Dir, "appendonlydir", "*.incr.aof"))
		if err != nil || len(found) != 1 {
			t.Fatalf("append-only files: %v, %v", found, err)
		}
		return found[0]
	}
	return lossyServers{
		config: s.Config(),
		mark: func() {
			s.Do(t, "set", "written", "1") // its answer comes after the write to the file
			info, err := os.Stat(file())
			if err != nil {
				t.Fatal(err)
			}
			size = info.Size()
		},
		lose: func() {
			s.Kill(t)
			if err := os.Truncate(file(), size); err != nil {
				t.Fatal(err)
			}
			s.Restart(t)
		},
		recover: func() {},
	}
}

// TestLoginLost loses logins, refreshes and logouts that were acknowledged. The
// clients go on with the tokens that they have, and no session that was logged out comes
// back.
func TestLoginLost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		start func(*testing.T) lossyServers
	}{{"lagging primary", laggingPrimary}, {"old snapshot", oldSnapshot}, {"append-only tail", appendOnlyTail}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := c.start(t)
			a, b := openPeer(t, s.config, ""), openPeer(t, s.config, "")
			is := storetest.NewIssuer(t, a.Store, b.Store)
			for round := range fromEnvironment(t, failoversVariable, 2) {
				loseLogins(t, s, is, []*peer{a, b}, round)
			}
			if n := a.JournalStats().Replayed + b.JournalStats().Replayed; n == 0 {
				t.Error("no logout was lost: nothing is tested here")
			}
		})
	}
}

// loseLogins does one round.
func loseLogins(t *testing.T, s lossyServers, is *storetest.Issuer, peers []*peer, round int) {
	t.Helper()
	ctx := t.Context()
	const users = 8
	refresh := func(d *storetest.Device, times int) {
		t.Helper()
		for range times {
			if err := d.Refresh(ctx); err != nil {
				t.Fatalf("refresh: %v", err)
			}
		}
	}
	var stay, gone, late, lateGone []*storetest.Device
	login := func(what string, i int) *storetest.Device {
		return is.Login(fmt.Sprintf("@%s-%d-%d:hs", what, round, i))
	}
	for i := range users {
		stay, gone = append(stay, login("early", i)), append(gone, login("early", i))
	}
	for _, d := range append(stay[:len(stay):len(stay)], gone...) {
		refresh(d, 2)
	}
	s.mark()
	for i := range users {
		d, e := login("late", i), login("late-gone", i)
		refresh(d, 1+i%3) // the activation, and up to two refreshes
		refresh(e, 1)
		late, lateGone = append(late, d), append(lateGone, e)
	}
	for _, d := range stay {
		refresh(d, 1)
	}
	for _, d := range append(gone[:len(gone):len(gone)], lateGone...) {
		if err := d.Logout(ctx); err != nil {
			t.Fatalf("log out: %v", err)
		}
	}
	for _, p := range peers { // or one of them would let a session in before it receives its end
		redistest.Eventually(t, "every process has received the logouts", func() bool {
			known := make(map[string]bool)
			for _, e := range storetest.All(t, p.journal) {
				known[e.Session.String()] = true
			}
			for _, d := range append(gone[:len(gone):len(gone)], lateGone...) {
				if !known[d.Session.String()] {
					return false
				}
			}
			return true
		})
	}
	failovers := make([]uint64, len(peers))
	for i, p := range peers {
		failovers[i] = p.JournalStats().Replays
	}
	s.lose()
	for i, p := range peers {
		redistest.Eventually(t, "the process works again", func() bool {
			return p.JournalStats().Replays > failovers[i] && p.Ready(ctx) == nil
		})
	}
	lost := 0
	for _, d := range late {
		v, err := peers[0].Load(ctx, d.User, d.Session, revocation.DeviceTag{})
		if err != nil {
			t.Fatal(err)
		}
		if v.Session == nil {
			lost++
		}
	}
	if lost == 0 {
		t.Error("no login was lost: nothing is tested here")
	}
	for what, devices := range map[string][]*storetest.Device{"a session whose login was lost": late, "a session that lost a refresh": stay} {
		for _, d := range devices {
			for range 3 {
				if err := d.Refresh(ctx); err != nil {
					t.Errorf("round %d: %s is refused: %v", round, what, err)
					break
				}
			}
		}
	}
	for what, devices := range map[string][]*storetest.Device{"a lost logout": gone, "a logout that was lost with the login": lateGone} {
		for _, d := range devices {
			if err := d.Refresh(ctx); err == nil {
				t.Errorf("round %d: %s was undone", round, what)
			}
		}
	}
	s.recover()
}
