package server

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

	"github.com/discharger/discharger/cmd/bench/load"
)

// process is a measured program.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait, once done is closed
	out  *lines        // its output, up to the line that shows it to be ready
}

// startProcess runs a program and waits until ready accepts a line of its standard
// error, or with stdout of its standard output.
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
		return nil, errors.Join(ctx.Err(), p.Kill())
	}
}

// lines is a writer that keeps lines until ready accepts one.
type lines struct {
	ready func(string) bool
	found chan struct{}

	mu   sync.Mutex
	kept bytes.Buffer
	over bool
	next int // offset of the first line not yet passed to ready
}

// Write keeps b until a line is ready, and drops it afterwards.
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

// End sends SIGTERM and waits for the process to end.
func (p *process) End() error {
	if p == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-time.After(load.Timeout):
		return errors.Join(fmt.Errorf("%s did not end within %v", p.cmd.Path, load.Timeout), p.Kill())
	}
}

// Kill ends the process at once, as a crash would.
func (p *process) Kill() error {
	err := p.cmd.Process.Kill()
	<-p.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Usage is the use of resources by a process, from the kernel.
type Usage struct {
	CPU    time.Duration // since it started
	Memory int64         // resident, in bytes
}

// Usage reads /proc; it fails on other systems than Linux.
func (p *process) Usage() (u Usage, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return u, fmt.Errorf("read processor time: %w", err)
	}
	// The program's name ends with the last parenthesis. The third and the further
	// fields of proc_pid_stat(5) follow.
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
	u.CPU = time.Duration(number(14)+number(15)) * (time.Second / ticks)
	if exact, ok := cpuOf(p.cmd.Process.Pid); ok {
		u.CPU = exact
	}
	u.Memory = number(24) * int64(os.Getpagesize())
	return u, err
}

// ticks is the number of clock ticks in a second, in proc_pid_stat(5).
const ticks = 100
