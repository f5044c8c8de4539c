package redistest

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// limit bounds every wait.
const limit = 4 * time.Minute

// Eventually waits until a condition is true.
func Eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !so(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain until %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// hosts counts the addresses that this process has tried.
var hosts atomic.Uint32

// lockPort is the port that the user of an address listens on.
const lockPort = "6999"

// newHost returns a loopback address that no other test uses, in this process
// or another, until the test ends.
func newHost(t testing.TB) string {
	t.Helper()
	for range 2000 {
		n := hosts.Add(1)
		host := fmt.Sprintf("127.53.%d.%d", 2+os.Getpid()%250, 1+n%250)
		l, err := net.Listen("tcp", net.JoinHostPort(host, lockPort))
		if err != nil {
			continue
		}
		t.Cleanup(func() { l.Close() })
		return host
	}
	t.Fatal("all loopback addresses for tests are in use")
	return ""
}

// Address returns an address for a server, which no other test uses. Its port
// and the one 10000 higher are below the range from which the kernel takes
// ports of connections.
func Address(t testing.TB) (host, port string) {
	t.Helper()
	host = newHost(t)
	return host, ports(t, host, 1)[0]
}

// ports returns free ports of a host whose ports 10000 higher, the bus ports of
// cluster nodes, are free too.
func ports(t testing.TB, host string, n int) []string {
	t.Helper()
	var out []string
	for port := 7000; len(out) < n; port++ {
		if port == 20000 {
			t.Fatalf("%s has no free ports", host)
		}
		if free(host, port) && free(host, port+10000) {
			out = append(out, strconv.Itoa(port))
		}
	}
	return out
}

func free(host string, port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// listen returns the arguments with which a server listens on a host and
// connects to others from it. Without a source address, a server would be seen
// at 127.0.0.1.
func listen(host, port string) []string {
	return []string{"--bind", host, "--port", port, "--bind-source-addr", host, "--protected-mode", "no"}
}
