// Package redistest runs real Redis servers for tests: each in a directory of
// its own, on a unix socket, stopped by its pid when the test ends. A machine
// without redis-server fails the test.
package redistest

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Server is a redis-server that keeps nothing on disk unless its arguments say
// so.
type Server struct {
	Dir    string
	Socket string // also an address for go-redis
	args   []string
	cmd    *exec.Cmd
}

// Start runs a server with further arguments and returns when it answers.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "ds") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Dir: dir, Socket: filepath.Join(dir, "s")}
	s.args = append([]string{"--port", "0", "--unixsocket", s.Socket, "--dir", dir,
		"--save", "", "--appendonly", "no", "--logfile", filepath.Join(dir, "log")}, args...)
	s.Restart(t)
	t.Cleanup(func() { s.Kill(t) })
	return s
}

// Restart runs the server again after Kill, with the same arguments.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	for deadline := time.Now().Add(30 * time.Second); !s.answers(); {
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			t.Fatalf("redis-server does not answer\n%s", log)
		}
	}
}

// answers asks for a PONG, or whatever a server says that wants a password.
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

// Kill ends the server at once, as a crash would. It may be called again.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	if err := s.cmd.Process.Kill(); err != nil {
		t.Errorf("stop redis-server: %v", err)
	}
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Signal sends the server a signal; SIGSTOP makes it hang, SIGCONT go on.
func (s *Server) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
