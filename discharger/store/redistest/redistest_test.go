package redistest

import "testing"

// TestSentinel loses a write in a failover.
func TestSentinel(t *testing.T) {
	t.Parallel()
	s := StartSentinel(t)
	s.Primary(t).Do(t, "set", "kept", 1)
	waitReplicas(t, s.Primary(t), 2)
	s.Cut(t)
	old := s.Primary(t)
	old.Do(t, "set", "lost", 1)
	old.Kill(t)
	primary := s.Failover(t)
	if kept, lost := primary.Do(t, "get", "kept"), primary.Do(t, "get", "lost"); kept != "1" || lost != nil {
		t.Errorf("after the failover, kept is %v and lost is %v", kept, lost)
	}
	s.Rejoin(t)
	if s.Lose(t) == primary {
		t.Error("a dead server is still the primary")
	}
}

// TestCluster loses a write in a failover of one of three primaries.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	old := c.PrimaryOf(t, "x")
	old.Do(t, "set", "{x}kept", 1)
	waitReplicas(t, old, 1)
	c.Cut(t, old)
	old.Do(t, "set", "{x}lost", 1)
	old.Kill(t)
	primary := c.TakeOver(t, old)
	if kept, lost := primary.Do(t, "get", "{x}kept"), primary.Do(t, "get", "{x}lost"); kept != "1" || lost != nil {
		t.Errorf("after the failover, kept is %v and lost is %v", kept, lost)
	}
	c.Rejoin(t)
	if again := c.Failover(t, primary); again != old {
		t.Errorf("%s was promoted, not %s", again.Addr, old.Addr)
	}
}
