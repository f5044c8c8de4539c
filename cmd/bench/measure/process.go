package measure

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that is measured.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of ending, once done is closed
	out  *lines        // what it says, up to the line that it is waited for with
}

// startProcess runs a program. What it writes to its standard error, or with
// stdout to that, is read until a line has come that ready accepts.
func startProcess(ctx context.Context, cmd *exec.Cmd, stdout bool, ready func(line string) bool) (*process, error) {
	out := &lines{ready: ready, found: make(chan struct{})}
	if cmd.Stderr = out; stdout {
		cmd.Stdout, cmd.Stderr = out, os.Stderr
	}
	p := &process{cmd: cmd, done: make(chan struct{}), out: out}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	select {
	case <-out.found:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w\n%s", cmd.Path, p.err, out.text())
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), p.kill())
	}
}

// lines keeps the first lines that are written to it, until one is ready.
type lines struct {
	ready func(string) bool
	found chan struct{}

	mu   sync.Mutex
	kept bytes.Buffer
	over bool
	next int // where the first line begins that was not looked at
}

// Write keeps what is still of interest and drops the rest.
func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return len(b), nil
	}
	l.kept.Write(b)
	for {
		line, _, ok := bytes.Cut(l.kept.Bytes()[l.next:], []byte("\n"))
		if !ok {
			return len(b), nil
		}
		l.next += len(line) + 1
		if l.ready(string(line)) {
			l.over = true
			close(l.found)
			return len(b), nil
		}
	}
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept.String()
}

// end asks the process to finish, and waits until it has.
func (p *process) end() error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(slow):
		return errors.Join(fmt.Errorf("%s did not end within %v", p.cmd.Path, slow), p.kill())
	}
}

// kill ends the process at once, as a crash would.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// usage is what the kernel says of a process.
type usage struct {
	cpu    time.Duration // since it started
	memory int64         // resident, in bytes
}

// usage reads /proc, which other systems than Linux do not have.
func (p *process) usage() (u usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return u, fmt.Errorf("read processor time: %w", err)
	}
	// What comes before the last parenthesis is the program's name; after it
	// come the third and the further fields of proc_pid_stat(5).
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 22 {
		return u, io.ErrUnexpectedEOF
	}
	number := func(field int) (n int64) {
		if err == nil {
			n, err = strconv.ParseInt(fields[field-3], 10, 64)
		}
		return n
	}
	u.cpu = time.Duration(number(14)+number(15)) * (time.Second / ticks)
	if exact, ok := cpuOf(p.cmd.Process.Pid); ok {
		u.cpu = exact
	}
	u.memory = number(24) * int64(os.Getpagesize())
	return u, err
}

// ticks is what the kernel divides a second into when it tells processor time.
const ticks = 100
