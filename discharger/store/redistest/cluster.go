package redistest

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// Cluster is a Redis Cluster of three primaries with one replica each.
type Cluster struct {
	Nodes []*Server // node i+3 was the replica of node i at first
	Addrs []string
}

// The time in milliseconds after which a node that does not answer is
// considered failed. Only a test that expects a failover sets a short one: a
// machine that stalls for seconds must not cost a primary at other times.
const (
	nodeTimeout = "--cluster-node-timeout"
	shortly     = "3000"
	never       = "600000"

	// During an ordered failover. A primary that voted for a replica does not
	// vote again for twice this time, and the replica does not ask again for
	// four times this time.
	ordering = "10000"
)

// StartCluster starts six nodes with the given arguments, and returns when all
// of them see a complete cluster.
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
		Eventually(t, "a replica replicates its primary", func() bool {
			return n.client.Do(t.Context(), "cluster", "replicate", id).Err() == nil
		})
	}
	c.Settle(t)
	c.notice(t, never)
	return c
}

// notice sets the node timeout of all running nodes.
func (c *Cluster) notice(t testing.TB, after string) {
	t.Helper()
	for _, n := range c.Nodes {
		if n.Alive() {
			n.Do(t, "config", "set", "cluster-node-timeout", after)
		}
	}
}

// Settle waits until every node sees every slot served, and every primary has
// its replica.
func (c *Cluster) Settle(t testing.TB) {
	t.Helper()
	Eventually(t, "all nodes see a complete cluster", func() bool {
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

// Primaries returns the nodes in the role of a primary.
func (c *Cluster) Primaries(t testing.TB) []*Server { return c.inRole(t, "master") }

// Replicas returns the running nodes in the role of a replica.
func (c *Cluster) Replicas(t testing.TB) []*Server { return c.inRole(t, "slave") }

func (c *Cluster) inRole(t testing.TB, role string) (out []*Server) {
	for _, n := range c.Nodes {
		if n.Alive() && n.Info(t, "replication")["role"] == role {
			out = append(out, n)
		}
	}
	return out
}

// PrimaryOf returns the primary that serves the slot of a key.
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

// owns reports whether a node claims a slot.
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

// Cut ends replication from a primary to its replica, once the replica has
// caught up. Later writes are lost in a failover.
func (c *Cluster) Cut(t testing.TB, primary *Server) {
	t.Helper()
	waitReplicas(t, primary, 1)
	cut(t, primary)
}

// Failover promotes the replica of a primary by an agreed failover.
func (c *Cluster) Failover(t testing.TB, primary *Server) *Server {
	t.Helper()
	c.notice(t, ordering)
	replica := c.promote(t, primary, nil)
	c.notice(t, never)
	return replica
}

// TakeOver promotes the replica of a primary that is down or cut off, without
// agreement of the other nodes.
func (c *Cluster) TakeOver(t testing.TB, primary *Server) *Server {
	t.Helper()
	return c.promote(t, primary, []any{"takeover"})
}

// Lose kills a primary, waits until the other nodes elect its replica, and
// returns the replica.
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

// orderTimeout is the time after which a failover order has expired. An earlier
// second order would restart the failover.
const orderTimeout = 6 * time.Second

func (c *Cluster) promote(t testing.TB, primary *Server, how []any) *Server {
	t.Helper()
	replica := c.replicaOf(t, primary)
	var ordered time.Time
	Eventually(t, "a replica accepts the failover", func() bool {
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

// promoted waits until a replica is a primary, and every running node sees it.
func (c *Cluster) promoted(t testing.TB, replica *Server) {
	t.Helper()
	id := fmt.Sprint(replica.Do(t, "cluster", "myid"))
	Eventually(t, "all nodes see the new primary", func() bool {
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

// replicaOf returns the replica of a primary, which can be down.
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

// Rejoin starts killed nodes, restores replication, and returns when the
// cluster is complete.
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
