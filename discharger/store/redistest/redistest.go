// Package redistest runs Redis servers for tests. Each has a directory of its
// own, listens on a unix socket, and is stopped by its pid when the test ends.
// On a machine without redis-server the test is skipped; see testkit.Need.
//
// [Start] runs one server, [StartValkey] one of Valkey, [StartSecure] one with
// TLS and an ACL user, [StartSentinel] a primary with two replicas and three
// Sentinels, and [StartCluster] three primaries with a replica each. The last
// two can lose a primary, promote a replica, and stop replication, so that
// acknowledged writes are lost. Servers that connect to each other listen on a
// loopback address that only one test uses.
//
// A wait ends when its condition is true. Its limit is four minutes, for a
// machine that is busy; exceeding it fails the test.
package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/testkit"
)

// Server is a running redis-server. Without other arguments it keeps nothing on
// disk.
type Server struct {
	Dir    string
	Socket string // also an address for go-redis
	Addr   string // host:port; empty: only the socket

	program string
	args    []string
	cmd     *exec.Cmd
	ended   chan struct{} // closed when cmd has ended
	client  *redis.Client
}

// Start runs a server with further arguments, and returns when it answers.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, "redis-server", args...)
}

// StartValkey runs a valkey-server, which has the features of Redis 7.2.
func StartValkey(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, testkit.Valkey(), args...)
}

func start(t testing.TB, program string, args ...string) *Server {
	t.Helper()
	testkit.Need(t, program)
	dir, err := os.MkdirTemp("", "ds") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := newServer(t, dir, program)
	s.args = append([]string{"--port", "0", "--unixsocket", s.Socket, "--dir", dir,
		"--save", "", "--appendonly", "no", "--logfile", filepath.Join(dir, "log")}, args...)
	s.run(t)
	return s
}

// newServer returns a server that is not running yet.
func newServer(t testing.TB, dir, program string) *Server {
	s := &Server{Dir: dir, Socket: filepath.Join(dir, "s"), program: program}
	s.client = s.Connect(t)
	return s
}

// Connect returns a client of the server. It waits up to the limit for an
// answer, and retries nothing.
func (s *Server) Connect(t testing.TB) *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr: s.Socket, MaxRetries: -1, DisableIdentity: true,
		DialTimeout: limit, ReadTimeout: limit, WriteTimeout: limit, PoolTimeout: limit,
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// run runs a server until the test ends.
func (s *Server) run(t testing.TB) {
	t.Helper()
	s.Restart(t)
	t.Cleanup(func() { s.Kill(t) })
}

// Restart runs the server again after Kill, with its arguments and further
// ones.
func (s *Server) Restart(t testing.TB, args ...string) {
	t.Helper()
	s.cmd = exec.Command(s.program, append(s.args[:len(s.args):len(s.args)], args...)...)
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", s.program, err)
	}
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	for deadline := time.Now().Add(limit); !s.answers(); {
		select {
		case <-ended:
			t.Fatalf("%s does not start\n%s", s.program, s.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer\n%s", s.program, s.Log())
		}
	}
}

// Log returns the log of the server.
func (s *Server) Log() string {
	log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
	return string(log)
}

// Do runs one command. An error other than nil fails the test.
func (s *Server) Do(t testing.TB, args ...any) any {
	t.Helper()
	v, err := s.client.Do(t.Context(), args...).Result()
	if err != nil && err != redis.Nil {
		t.Fatalf("%v: %v", args, err)
	}
	return v
}

// Info returns one section of INFO by field name.
func (s *Server) Info(t testing.TB, section string) map[string]string {
	t.Helper()
	text, _ := s.Do(t, "info", section).(string)
	return parse(text)
}

func parse(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.SplitSeq(text, "\r\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			info[name] = value
		}
	}
	return info
}

// Calls returns the number of executions of each command.
func (s *Server) Calls(t testing.TB) map[string]int {
	t.Helper()
	out := make(map[string]int)
	for name, value := range s.Info(t, "commandstats") {
		calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
		if n, err := strconv.Atoi(calls); err == nil {
			out[strings.TrimPrefix(name, "cmdstat_")] = n
		}
	}
	return out
}

// answers reports whether the server answers PING, with or without a password.
func (s *Server) answers() bool {
	c, err := net.DialTimeout("unix", s.Socket, time.Second)
	if err != nil {
		time.Sleep(2 * time.Millisecond)
		return false
	}
	defer c.Close()
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return err == nil && (strings.HasPrefix(line, "+PONG") || strings.HasPrefix(line, "-NOAUTH"))
}

// Kill kills the server. A second call does nothing.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("stop %s: %v", s.program, err)
	}
	<-s.ended
	s.cmd = nil
}

// Signal sends a signal to the server. With SIGSTOP it returns when every
// thread has stopped; SIGCONT resumes.
func (s *Server) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if sig == syscall.SIGSTOP {
		Eventually(t, "the server hangs", func() bool { return stopped(t, s.cmd.Process.Pid) })
	}
}

// stopped reports whether all threads of a process have stopped.
func stopped(t testing.TB, pid int) bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("process %d has no threads, %v", pid, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return false // the thread has ended
		}
		// The state follows the name, which is in parentheses and can contain
		// any byte.
		if _, state, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " "); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// Alive reports whether the server runs.
func (s *Server) Alive() bool { return s.cmd != nil }
