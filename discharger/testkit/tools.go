package testkit

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// AllVariable names the environment variable that makes a missing program a failure.
// .ci/test sets it. Without it a test that needs such a program is skipped, so that
// "go test ./..." passes with Go alone.
const AllVariable = "DISCHARGER_TEST_ALL"

// ValkeyVariable names the environment variable that holds the path of valkey-server,
// version 8 or newer. Without it, the one in PATH is run.
const ValkeyVariable = "DISCHARGER_VALKEY_SERVER"

// tools has the programs that tests run, with the part of the program that is not
// tested without them.
var tools = []struct{ program, untested string }{
	{"redis-server", "the store in Redis, and everything on top of it"},
	{"redis-sentinel", "failover with Sentinel"},
	{Valkey(), "the store in Valkey"},
	{"python3", "the examples in Python"},
}

// Valkey returns the name or path of valkey-server.
func Valkey() string {
	if path := os.Getenv(ValkeyVariable); path != "" {
		return path
	}
	return "valkey-server"
}

// Has reports whether a program is installed. Where everything is required it is true,
// so that the test runs and fails.
func Has(program string) bool {
	if os.Getenv(AllVariable) != "" {
		return true
	}
	_, err := exec.LookPath(program)
	return err == nil
}

// Need skips the test if one of the programs is not installed. Where everything is
// required the test fails instead.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err == nil {
			continue
		}
		if os.Getenv(AllVariable) != "" {
			t.Fatalf("%s is not installed, and $%s requires it", program, AllVariable)
		}
		t.Skipf("%s is not installed", program)
	}
}

// LeftOut lists the programs that are not installed, each with the part that is not
// tested without it; "": everything is tested.
func LeftOut() string {
	var missing []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool.program); err != nil {
			missing = append(missing, "  "+tool.program+": "+tool.untested)
		}
	}
	return strings.Join(missing, "\n")
}
