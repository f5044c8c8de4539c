package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/discharger/discharger/discharger/testkit"
)

// TestLeftOut lists the tests that this machine cannot run. "go test" drops the output
// of a package that passes, so the list goes to the terminal of the one who runs it,
// if there is one. "go test -v -run TestLeftOut ./cmd/discharger" prints it too.
func TestLeftOut(t *testing.T) {
	missing := testkit.LeftOut()
	if missing == "" {
		return
	}
	text := fmt.Sprintf("not tested, for want of programs that are not installed:\n%s\n"+
		".ci/test installs them, and tests everything", missing)
	if os.Getenv(testkit.AllVariable) != "" {
		t.Fatal(text)
	}
	if terminal, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0); err == nil {
		fmt.Fprintln(terminal, text)
		terminal.Close()
	}
	t.Skip(text)
}
