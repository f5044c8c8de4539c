package redistest

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Cluster is three primaries with a replica each.
type Cluster struct {
	Nodes []*Server // node i+3 was the replica of node i at first
	Addrs []string
}

// After nodeTimeout, in milliseconds, a node that does not answer is taken for
// dead. That is for a test to order: while it does something else, a machine
// that stands still for some seconds is not to cost a primary.
const (
	nodeTimeout = "--cluster-node-timeout"
	shortly     = "3000"
	never       = "600000"

	// While a replica is ordered to take over: for twice as long a primary that
	// has voted for it does not vote again, and for four times as long it does
	// not ask again, should the machine stand still in between.
	ordering = "10000"
)

// StartCluster starts six nodes and returns when all agree that the cluster is
// whole. The arguments are for each node.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	host := newHost(t)
	c := &Cluster{}
	for _, port := range ports(t, host, 6) {
		n := startAt(t, host, port, append([]string{"--cluster-enabled", "yes", nodeTimeout, shortly,
			"--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"}, args...)...)
		c.Nodes = append(c.Nodes, n)
		c.Addrs = append(c.Addrs, n.Addr)
	}
	first, last := 0, 0
	for i, n := range c.Nodes {
		n.Do(t, "cluster", "set-config-epoch", i+1)
		if i < 3 {
			first, last = i*16384/3, (i+1)*16384/3-1
			n.Do(t, "cluster", "addslotsrange", first, last)
		}
		_, port, _ := net.SplitHostPort(n.Addr)
		c.Nodes[0].Do(t, "cluster", "meet", host, port)
	}
	for i, n := range c.Nodes[3:] {
		id := fmt.Sprint(c.Nodes[i].Do(t, "cluster", "myid"))
		Eventually(t, "a replica has heard of its primary", func() bool {
			return n.client.Do(t.Context(), "cluster", "replicate", id).Err() == nil
		})
	}
	c.Settle(t)
	c.notice(t, never)
	return c
}

// notice has nodes that live notice after some time that others do not.
func (c *Cluster) notice(t testing.TB, after string) {
	t.Helper()
	for _, n := range c.Nodes {
		if n.Alive() {
			n.Do(t, "config", "set", "cluster-node-timeout", after)
		}
	}
}

// Settle waits until all nodes agree that every slot is served, and every
// primary has its replica.
func (c *Cluster) Settle(t testing.TB) {
	t.Helper()
	Eventually(t, "all nodes of the cluster agree", func() bool {
		for _, n := range c.Nodes {
			text, _ := n.Do(t, "cluster", "info").(string)
			info := parse(text)
			if info["cluster_state"] != "ok" || info["cluster_size"] != "3" || info["cluster_known_nodes"] != "6" {
				return false
			}
			r := n.Info(t, "replication")
			if r["role"] == "slave" && r["master_link_status"] != "up" || r["role"] == "master" && r["connected_slaves"] != "1" {
				return false
			}
		}
		return len(c.Primaries(t)) == 3
	})
}

// Primaries returns the nodes that know that they are primaries.
func (c *Cluster) Primaries(t testing.TB) []*Server { return c.inRole(t, "master") }

// Replicas returns the others that are alive.
func (c *Cluster) Replicas(t testing.TB) []*Server { return c.inRole(t, "slave") }

func (c *Cluster) inRole(t testing.TB, role string) (out []*Server) {
	for _, n := range c.Nodes {
		if n.Alive() && n.Info(t, "replication")["role"] == role {
			out = append(out, n)
		}
	}
	return out
}

// PrimaryOf returns the primary that has the slot of a key.
func (c *Cluster) PrimaryOf(t testing.TB, key string) *Server {
	t.Helper()
	slot := c.Nodes[0].Do(t, "cluster", "keyslot", key)
	var found *Server
	Eventually(t, "a primary has the slot of "+key, func() bool {
		for _, n := range c.Primaries(t) {
			if owns(t, n, slot.(int64)) {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// owns reports whether a node says of itself that it has a slot.
func owns(t testing.TB, n *Server, slot int64) bool {
	text, _ := n.Do(t, "cluster", "nodes").(string)
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 9 || !strings.Contains(f[2], "myself") {
			continue
		}
		for _, r := range f[8:] {
			var from, to int64
			if n, _ := fmt.Sscanf(r, "%d-%d", &from, &to); n == 1 {
				to = from
			}
			if from <= slot && slot <= to {
				return true
			}
		}
	}
	return false
}

// Cut ends the link between a primary and its replica, once that has caught up:
// what it acknowledges from now on does not survive it.
func (c *Cluster) Cut(t testing.TB, primary *Server) {
	t.Helper()
	waitReplicas(t, primary, 1)
	cut(t, primary)
}

// Failover promotes the replica of a primary in good order.
func (c *Cluster) Failover(t testing.TB, primary *Server) *Server {
	t.Helper()
	c.notice(t, ordering)
	replica := c.promote(t, primary, nil)
	c.notice(t, never)
	return replica
}

// TakeOver promotes the replica of a primary that is dead or cut off, whether
// others agree or not.
func (c *Cluster) TakeOver(t testing.TB, primary *Server) *Server {
	t.Helper()
	return c.promote(t, primary, []any{"takeover"})
}

// Lose kills a primary and returns the replica that the others, noticing it by
// themselves, elect.
func (c *Cluster) Lose(t testing.TB, primary *Server) *Server {
	t.Helper()
	replica := c.replicaOf(t, primary)
	waitReplicas(t, primary, 1)
	c.notice(t, shortly)
	primary.Kill(t)
	c.promoted(t, replica)
	c.notice(t, never)
	return replica
}

// orderTimeout is how long a replica tries to follow an order, and a bit. If it
// gets another one before that, it begins anew.
const orderTimeout = 6 * time.Second

func (c *Cluster) promote(t testing.TB, primary *Server, how []any) *Server {
	t.Helper()
	replica := c.replicaOf(t, primary)
	var ordered time.Time
	Eventually(t, "a replica takes the order", func() bool {
		if replica.Info(t, "replication")["role"] == "master" {
			return true
		}
		if time.Since(ordered) > orderTimeout {
			if replica.client.Do(t.Context(), append([]any{"cluster", "failover"}, how...)...).Err() == nil {
				ordered = time.Now()
			}
		}
		return false
	})
	c.promoted(t, replica)
	return replica
}

// promoted waits until a replica is a primary, and all who are alive know.
func (c *Cluster) promoted(t testing.TB, replica *Server) {
	t.Helper()
	id := fmt.Sprint(replica.Do(t, "cluster", "myid"))
	Eventually(t, "all nodes know the new primary", func() bool {
		for _, n := range c.Nodes {
			if !n.Alive() {
				continue
			}
			known, _ := n.Do(t, "cluster", "nodes").(string)
			info, _ := n.Do(t, "cluster", "info").(string)
			if parse(info)["cluster_state"] != "ok" || !isPrimary(known, id) {
				return false
			}
		}
		return true
	})
}

func isPrimary(nodes, id string) bool {
	for line := range strings.SplitSeq(nodes, "\n") {
		if f := strings.Fields(line); len(f) > 8 && f[0] == id {
			return strings.Contains(f[2], "master")
		}
	}
	return false
}

// replicaOf returns the node that replicates a primary, which may be dead.
func (c *Cluster) replicaOf(t testing.TB, primary *Server) *Server {
	t.Helper()
	_, port, _ := net.SplitHostPort(primary.Addr)
	for _, n := range c.Replicas(t) {
		if n.Info(t, "replication")["master_port"] == port {
			return n
		}
	}
	t.Fatalf("%s has no replica", primary.Addr)
	return nil
}

// Rejoin starts nodes that were killed, ends all cuts, and returns when the
// cluster is whole again.
func (c *Cluster) Rejoin(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		if !n.Alive() {
			n.Restart(t, nodeTimeout, never)
		}
		mend(t, n)
	}
	c.Settle(t)
}
