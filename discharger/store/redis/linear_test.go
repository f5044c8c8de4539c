package redis_test

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// TestLinearRedis drops replies, makes the server hang, and kills it: it has
// everything on its disk.
func TestLinearRedis(t *testing.T) {
	t.Parallel()
	s := StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	p := startProxy(t, s.Socket)
	cfg := s.Config()
	cfg.Addrs, cfg.ReadTimeout = []string{p.addr}, 2*time.Second
	cfg.Journal = storetest.OpenJournal(t, journal.Config{})
	r := OpenRedis(t, cfg)
	storetest.ExpectLinear(t, storetest.Linear{Tabs: 2, During: func(<-chan struct{}) {
		p.every.Store(40)
		defer p.every.Store(0)
		storetest.Pause(t.Context(), 40*time.Millisecond)
		s.pause(t)
		storetest.Pause(t.Context(), 100*time.Millisecond)
		s.resume(t)
		storetest.Pause(t.Context(), 20*time.Millisecond)
		s.crash(t)
	}}.Run(t, r))
}

// TestLinearSentinel loses the primary and its last acknowledged writes.
func TestLinearSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	t.Run("journal", func(t *testing.T) {
		cfg := sentinelConfig(s)
		cfg.ReadTimeout, cfg.Journal = 2*time.Second, storetest.OpenJournal(t, journal.Config{})
		storetest.ExpectLinear(t, lossy(t, s).Run(t, OpenRedis(t, cfg)))
	})
	s.Rejoin(t)
	t.Run("no journal", func(t *testing.T) {
		cfg := sentinelConfig(s)
		cfg.ReadTimeout = 2 * time.Second
		if got := lossy(t, s).Run(t, OpenRedis(t, cfg)); got != porcupine.Illegal {
			t.Errorf("without a journal, logouts that were lost go unnoticed: the history is %s", got)
		}
	})
}

// lossy ends replication, waits for logouts, and promotes a replica.
func lossy(t *testing.T, s *redistest.Sentinel) storetest.Linear {
	return storetest.Linear{Tabs: 1, Forgetful: true, Settled: func() { s.Cut(t) }, During: func(loggedOut <-chan struct{}) {
		<-loggedOut
		s.Primary(t).Kill(t)
		s.Failover(t)
	}}
}
