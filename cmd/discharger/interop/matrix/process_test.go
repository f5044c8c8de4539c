package matrix

import (
	"bytes"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program in a subprocess.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	out  *output
}

// output is the output of a program, readable while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a program until the test ends. Its output is appended to out, and logged
// if the test fails.
func start(t *testing.T, out *output, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(name, args...), done: make(chan struct{}), out: out}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.stop(t, syscall.SIGTERM)
		if text := out.String(); t.Failed() {
			t.Logf("%s wrote at the end:\n%s", name, text[max(0, len(text)-8000):])
		}
	})
	return p
}

// stop ends the program, if it runs, and waits for its end.
func (p *process) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.done
		t.Errorf("%s did not end by itself", p.name)
	}
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
