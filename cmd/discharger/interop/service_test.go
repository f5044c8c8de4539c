//go:build interop

package interop

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout only ends a server that hangs at its start or stop.
const startTimeout = 2 * time.Minute

// process is a server in a subprocess.
type process struct {
	cmd    *exec.Cmd
	lines  chan string // its output, until start returns
	exited chan error
	log    *os.File // all of its output
}

// start runs a server and waits until each of the given texts is in its output. The
// server is killed at the end of the test, unless it was stopped before.
func start(t *testing.T, cmd *exec.Cmd, until ...string) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), filepath.Base(cmd.Path)+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	p := &process{cmd: cmd, lines: make(chan string), exited: make(chan error, 1), log: log}
	ready := make(chan struct{})
	defer close(ready)
	go p.read(out, ready)
	t.Cleanup(func() { p.kill(t) })
	timeout := time.After(startTimeout)
	for len(until) > 0 {
		select {
		case line, ok := <-p.lines:
			if !ok {
				t.Fatalf("%s ended before it was ready:\n%s", cmd, p.output(t))
			}
			if strings.Contains(line, until[0]) {
				until = until[1:]
			}
		case <-timeout:
			t.Fatalf("%s has not printed %q:\n%s", cmd, until[0], p.output(t))
		}
	}
	return p
}

// read sends lines to p.lines until the server is ready, and writes all of them to
// p.log.
func (p *process) read(out io.ReadCloser, ready <-chan struct{}) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fmt.Fprintln(p.log, lines.Text())
		select {
		case <-ready:
		case p.lines <- lines.Text():
		}
	}
	close(p.lines)
	out.Close()
	p.exited <- p.cmd.Wait()
}

// output returns the last 8 KiB of the output.
func (p *process) output(t *testing.T) []byte {
	t.Helper()
	out, err := os.ReadFile(p.log.Name())
	if err != nil {
		t.Error(err)
	}
	return out[max(len(out)-8<<10, 0):]
}

// stop sends SIGTERM and returns the error of Wait.
func (p *process) stop(t *testing.T) error {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.exited:
		p.exited <- err
		return err
	case <-time.After(startTimeout):
		t.Fatalf("%s does not stop:\n%s", p.cmd, p.output(t))
		return nil
	}
}

// kill ends the server, if it runs, and logs its output if the test failed.
func (p *process) kill(t *testing.T) {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-p.exited
	if t.Failed() {
		t.Logf("%s printed at the end:\n%s", p.cmd, p.output(t))
	}
	p.log.Close()
}

// handedOut has the addresses returned by freeAddresses. The kernel may offer a port
// again before the first server listens on it.
var handedOut sync.Map

// freeAddresses returns loopback addresses to listen on. Their host belongs to this
// process alone, and each is returned once.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	pid := os.Getpid()
	var all []string
	for len(all) < n {
		l, err := net.Listen("tcp", fmt.Sprintf("127.53.%d.%d:0", pid>>8&0xff, max(pid&0xff, 1)))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		address := l.Addr().String()
		if _, taken := handedOut.LoadOrStore(address, true); !taken {
			all = append(all, address)
		}
	}
	return all
}

// service is a running binary under test.
type service struct {
	url, admin string // for clients, for operators
	dir        string // its configuration, and its data
	process    *process
	command    []string
}

// startService writes a configuration and starts the binary with it. The further
// lines register homeservers.
func startService(t *testing.T, binary string, st store, further string) *service {
	t.Helper()
	dir := t.TempDir()
	addresses := freeAddresses(t, 2)
	clients, operators := addresses[0], addresses[1]
	config := fmt.Sprintf("listen: %s\nadmin_listen: %s\npublic_url: http://%s\ndata_dir: %s\nrequest_timeout: 10s\n%s%s",
		clients, operators, clients, filepath.Join(dir, "data"), st.config, further)
	file := filepath.Join(dir, "discharger.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if st.shared {
		if problem := command(t, binary, "keys", "new", "--config", file); problem != nil {
			t.Fatalf("%s", problem)
		}
	}
	s := &service{
		dir:     dir,
		url:     "http://" + clients,
		admin:   "http://" + operators,
		command: []string{binary, "serve", "--config", file},
	}
	s.start(t)
	return s
}

// start starts the binary again, with the same configuration and data.
func (s *service) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Dir = s.dir
	s.process = start(t, cmd, strings.TrimPrefix(s.url, "http://"))
	// /readyz allows the store a second, and the machine may pause for as long.
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(s.admin + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz answers %s:\n%s", resp.Status, s.process.output(t))
		}
	}
}
