//go:build interop

package interop

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// store is a kind of store for a service.
type store struct {
	config string // lines of the service's configuration
	shared bool   // other processes could use it, so that the first start makes no keys
	// holds reports whether the store, and no other, has records.
	holds func(*testing.T, *service) bool
}

// bolt returns the embedded store, which needs no configuration.
func bolt(*testing.T) store { return store{holds: inFile} }

// inFile reports whether the service has a file of sessions.
func inFile(t *testing.T, s *service) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "data", "sessions.db"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files) > 0
}

// redis starts a Redis with the settings that the service requires.
func redis(t *testing.T) store {
	t.Helper()
	address := freeAddresses(t, 1)[0]
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	start(t, exec.Command("redis-server", "--bind", host, "--port", port, "--dir", t.TempDir(),
		"--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"), "Ready to accept connections")
	return store{
		shared: true,
		config: fmt.Sprintf("store:\n  redis: {addresses: [%q], timeouts: {dial: 10s, read: 10s, write: 10s}}\n", address),
		holds: func(t *testing.T, s *service) bool {
			t.Helper()
			return keys(t, address) > 0 && !inFile(t, s)
		},
	}
}

// keys returns the number of keys in a Redis.
func keys(t *testing.T, address string) int {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, startTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "DBSIZE\r\n")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Trim(line, ":\r\n"))
	if err != nil {
		t.Fatalf("Redis answers %q", line)
	}
	return n
}
