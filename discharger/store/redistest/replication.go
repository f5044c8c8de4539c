package redistest

import (
	"net"
	"strconv"
	"strings"
	"testing"
)

// Replicas authenticate to their primary as the user replication, which [cut]
// disables.
var replicated = []string{
	"--user", "replication", "on", ">secret", "~*", "&*", "+@all", "--masteruser", "replication", "--masterauth", "secret",
	"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0", "--repl-backlog-size", "16mb",
}

// startAt runs a server that listens on a host.
func startAt(t testing.TB, host, port string, args ...string) *Server {
	t.Helper()
	s := start(t, "redis-server", append(append(listen(host, port), replicated...), args...)...)
	s.Addr = net.JoinHostPort(host, port)
	return s
}

// cut ends replication from a primary until mend. Later writes are lost if a
// replica is promoted.
func cut(t testing.TB, primary *Server) {
	t.Helper()
	primary.Do(t, "acl", "setuser", "replication", "off")
	Eventually(t, "the replicas are cut off", func() bool {
		primary.Do(t, "client", "kill", "type", "replica")
		return primary.Info(t, "replication")["connected_slaves"] == "0"
	})
}

// mend restores replication from a primary.
func mend(t testing.TB, primary *Server) {
	t.Helper()
	primary.Do(t, "acl", "setuser", "replication", "on")
}

// waitReplicas waits until a number of replicas have everything the primary has
// now. WAIT covers the writes of its own connection only.
func waitReplicas(t testing.TB, primary *Server, want int) {
	t.Helper()
	offset := number(primary.Info(t, "replication")["master_repl_offset"])
	Eventually(t, "the replicas have caught up", func() bool {
		n := 0
		for name, value := range primary.Info(t, "replication") {
			if !strings.HasPrefix(name, "slave") || !strings.Contains(value, "state=online") {
				continue
			}
			_, rest, _ := strings.Cut(value, "offset=")
			text, _, _ := strings.Cut(rest, ",")
			if number(text) >= offset {
				n++
			}
		}
		return n >= want
	})
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1
	}
	return n
}
