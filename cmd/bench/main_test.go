package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is bench, when it is run under that name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bench": main})
}

// TestScripts runs testdata with a discharger built from the source tree.
func TestScripts(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "discharger"), "./cmd/discharger")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the discharger: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("DISCHARGER", filepath.Join(bin, "discharger"))
			e.Values[servedKey{}] = new(served)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exit": cmdExit, "serve": cmdServe, "reload": cmdReload},
	})
}

// cmdExit runs bench and compares its exit code.
//
//	exit 2 bench --workload sleep
func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit code program [args...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if exit, ok := err.(*exec.ExitError); ok {
		code = exit.ProcessState.String()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strings.TrimPrefix(code, "exit status ") != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// served is the discharger that cmdServe started. Its log is read to the end, so
// that it never blocks on writing it.
type served struct {
	cmd    *exec.Cmd
	events chan line // messages "listening" and "reloaded"; closed at the end of the log
}

type servedKey struct{}

// line is a line of the log.
type line struct{ Msg, Clients, Operators string }

func (s *served) read(log io.Reader) {
	defer close(s.events)
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var l line
		if json.Unmarshal(lines.Bytes(), &l) == nil && (l.Msg == "listening" || l.Msg == "reloaded") {
			s.events <- l
		}
	}
	_, _ = io.Copy(io.Discard, log) // after a line that is too long
}

// cmdServe starts the discharger until the script ends, and sets $URL and $ADMIN
// to its addresses, and $DISCHARGER_SERVICE to the former.
//
//	serve [flags...]
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(servedKey{}).(*served)
	s.cmd = exec.Command(ts.Getenv("DISCHARGER"), append([]string{"serve"}, args...)...)
	s.cmd.Dir = ts.MkAbs(".")
	s.cmd.Env = append(os.Environ(), "DISCHARGER_LOG_FORMAT=json")
	log, err := s.cmd.StderrPipe()
	ts.Check(err)
	s.events = make(chan line, 10)
	ts.Check(s.cmd.Start())
	go s.read(log)
	ts.Defer(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		for range s.events { // until the process has closed its log
		}
		_ = s.cmd.Wait()
	})
	l := <-s.events
	if l.Msg != "listening" {
		ts.Fatalf("the discharger ended")
	}
	ts.Setenv("URL", l.Clients)
	ts.Setenv("DISCHARGER_SERVICE", l.Clients)
	ts.Setenv("ADMIN", l.Operators)
}

// cmdReload makes the discharger read its configuration again.
//
//	reload
func cmdReload(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(servedKey{}).(*served)
	ts.Check(s.cmd.Process.Signal(syscall.SIGHUP))
	if l := <-s.events; l.Msg != "reloaded" {
		ts.Fatalf("the discharger ended")
	}
}
