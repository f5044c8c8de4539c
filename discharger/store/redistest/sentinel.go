package redistest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/discharger/discharger/discharger/testkit"
)

// Sentinel is a primary with two replicas, watched by three Sentinels.
type Sentinel struct {
	Name      string    // of the primary
	Addrs     []string  // of the Sentinels
	Nodes     []*Server // the first one is the initial primary
	Sentinels []*Server
}

// The time in milliseconds after which a primary that does not answer is
// considered failed. Only a test that expects a failover sets a short one.
const (
	downNever   = 600_000
	downShortly = 2000
)

// StartSentinel starts the six servers, and returns when the Sentinels know
// each other and the replicas. The arguments are for the three data servers.
func StartSentinel(t testing.TB, args ...string) *Sentinel {
	t.Helper()
	testkit.Need(t, "redis-server", "redis-sentinel")
	host := newHost(t)
	free := ports(t, host, 6)
	s := &Sentinel{Name: "sessions"}
	for i := range 3 {
		s.Nodes = append(s.Nodes, startAt(t, host, free[i], append([]string{"--replica-priority", "100"}, args...)...))
	}
	for _, n := range s.Nodes[1:] {
		n.Do(t, "replicaof", host, free[0])
	}
	for _, port := range free[3:] {
		s.watch(t, host, port, free[0])
	}
	waitReplicas(t, s.Nodes[0], 2)
	s.settle(t)
	return s
}

// watch starts a Sentinel.
func (s *Sentinel) watch(t testing.TB, host, port, primary string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor %s %s %s 2\n"+
		"sentinel down-after-milliseconds %[1]s %[4]d\nsentinel failover-timeout %[1]s 3000\n"+
		"sentinel parallel-syncs %[1]s 2\n", s.Name, host, primary, downNever)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ds")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := newServer(t, dir, "redis-sentinel")
	w.Addr = net.JoinHostPort(host, port)
	w.args = append([]string{file, "--unixsocket", w.Socket, "--dir", dir, "--logfile", filepath.Join(dir, "log")},
		listen(host, port)...)
	w.run(t)
	s.Sentinels = append(s.Sentinels, w)
	s.Addrs = append(s.Addrs, w.Addr)
}

// Primary returns the server that every Sentinel names as primary and that is
// in this role.
func (s *Sentinel) Primary(t testing.TB) *Server {
	t.Helper()
	var primary *Server
	Eventually(t, "the Sentinels agree on a primary", func() bool {
		primary = s.agreed(t)
		return primary != nil && primary.Alive() && primary.Info(t, "replication")["role"] == "master"
	})
	return primary
}

// agreed returns the server that every Sentinel names, nil if they differ.
func (s *Sentinel) agreed(t testing.TB) *Server {
	first := s.named(t, s.Sentinels[0])
	for _, w := range s.Sentinels[1:] {
		if s.named(t, w) != first {
			return nil
		}
	}
	return first
}

// named returns the server that a Sentinel names.
func (s *Sentinel) named(t testing.TB, w *Server) *Server {
	got, _ := w.Do(t, "sentinel", "get-master-addr-by-name", s.Name).([]any)
	if len(got) != 2 {
		return nil
	}
	addr := net.JoinHostPort(fmt.Sprint(got[0]), fmt.Sprint(got[1]))
	for _, n := range s.Nodes {
		if n.Addr == addr {
			return n
		}
	}
	return nil
}

// settle waits until every Sentinel sees the two others and two replicas in
// order.
func (s *Sentinel) settle(t testing.TB) {
	t.Helper()
	Eventually(t, "the Sentinels know each other and the replicas", func() bool {
		for _, w := range s.Sentinels {
			state := fields(w.Do(t, "sentinel", "master", s.Name))
			if state["flags"] != "master" || state["num-slaves"] != "2" || state["num-other-sentinels"] != "2" {
				return false
			}
			replicas, _ := w.Do(t, "sentinel", "replicas", s.Name).([]any)
			for _, r := range replicas {
				if f := fields(r); f["flags"] != "slave" || f["master-link-status"] != "ok" {
					return false
				}
			}
		}
		return true
	})
}

// fields decodes a list of names and values.
func fields(v any) map[string]string {
	out := make(map[string]string)
	switch v := v.(type) {
	case []any:
		for i := 0; i+1 < len(v); i += 2 {
			out[fmt.Sprint(v[i])] = fmt.Sprint(v[i+1])
		}
	case map[any]any:
		for name, value := range v {
			out[fmt.Sprint(name)] = fmt.Sprint(value)
		}
	}
	return out
}

// Cut ends replication from the primary, once the replicas have caught up.
// Later writes are lost in a failover.
func (s *Sentinel) Cut(t testing.TB) {
	t.Helper()
	primary := s.Primary(t)
	waitReplicas(t, primary, 2)
	cut(t, primary)
}

// Failover orders a failover and returns the new primary. The old one can be
// down; otherwise it becomes a replica.
func (s *Sentinel) Failover(t testing.TB) *Server {
	t.Helper()
	first := s.Sentinels[0]
	old := s.named(t, first)
	return s.promoted(t, old, func() {
		// Refused during a failover; a failover can be aborted.
		if s.named(t, first) == old {
			_ = first.client.Do(t.Context(), "sentinel", "failover", s.Name).Err()
		}
	})
}

// Lose kills the primary, waits until the Sentinels promote a replica, and
// returns it.
func (s *Sentinel) Lose(t testing.TB) *Server {
	t.Helper()
	old := s.Primary(t)
	s.notice(t, downShortly)
	old.Kill(t)
	primary := s.promoted(t, old, func() {})
	s.notice(t, downNever)
	return primary
}

// notice sets the time after which a Sentinel considers the primary failed.
func (s *Sentinel) notice(t testing.TB, after int) {
	t.Helper()
	for _, w := range s.Sentinels {
		w.Do(t, "sentinel", "set", s.Name, "down-after-milliseconds", after)
	}
}

// promoted calls push until another server is the primary.
func (s *Sentinel) promoted(t testing.TB, old *Server, push func()) *Server {
	t.Helper()
	var primary *Server
	Eventually(t, "another server is the primary", func() bool {
		primary = s.agreed(t)
		if primary != nil && primary != old && primary.Alive() && primary.Info(t, "replication")["role"] == "master" {
			return true
		}
		push()
		return false
	})
	return primary
}

// Rejoin starts killed servers as replicas, restores replication, and returns
// when everything is in order.
func (s *Sentinel) Rejoin(t testing.TB) {
	t.Helper()
	primary := s.Primary(t)
	host, port, err := net.SplitHostPort(primary.Addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.Nodes {
		if !n.Alive() {
			n.Restart(t, "--replicaof", host, port)
		}
		mend(t, n)
	}
	waitReplicas(t, primary, 2)
	s.settle(t)
}
