package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds the wait for an event that is due at once.
const patience = 2 * time.Minute

// patientSetting lets a service wait for its store for as long as a client waits
// for it. By default that is so short that a pause of the machine, or of its
// disk, is a refusal to decide.
const patientSetting = "request_timeout: 10s\n"

// process is a program in the background whose standard error is read along.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of ending, once done is closed

	mu      sync.Mutex
	log     bytes.Buffer
	changed chan struct{} // closed and replaced with every line
}

// start runs a program. Stop it with kill in any case.
func start(dir string, env []string, name string, args ...string) (*process, error) {
	return startWith(dir, env, nil, name, args...)
}

// startWith runs a program with open files, the first of which is number 3.
func startWith(dir string, env []string, files []*os.File, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{}), changed: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.ExtraFiles = dir, env, files
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewReader(r); ; {
			line, err := lines.ReadString('\n')
			p.mu.Lock()
			p.log.WriteString(line)
			close(p.changed)
			p.changed = make(chan struct{})
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	go func() {
		p.err = p.cmd.Wait()
		w.Close()
		<-read
		close(p.done)
	}()
	return p, nil
}

// waitFor waits until the log matches, and returns the match.
func (p *process) waitFor(pattern string) (m []string, err error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	err = p.waitUntil(func(log string) bool {
		m = re.FindStringSubmatch(log)
		return m != nil
	})
	return m, err
}

// waitForTimes waits until a text is in the log so many times.
func (p *process) waitForTimes(text string, n int) error {
	return p.waitUntil(func(log string) bool { return strings.Count(log, text) >= n })
}

// length returns how long the log is.
func (p *process) length() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Len()
}

// waitAfter waits until a text is in the log after its first bytes. It reads a long
// log once.
func (p *process) waitAfter(from int, text string) error {
	timeout := time.After(patience)
	for {
		p.mu.Lock()
		found := bytes.Contains(p.log.Bytes()[from:], []byte(text))
		from = max(from, p.log.Len()-len(text))
		changed := p.changed
		p.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			return errors.New("it ended first:\n" + p.text())
		case <-timeout:
			return fmt.Errorf("%q is not in the log within %v", text, patience)
		}
	}
}

// waitUntil waits until the log is as it should be.
func (p *process) waitUntil(is func(log string) bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		p.mu.Lock()
		log, changed := p.log.String(), p.changed
		p.mu.Unlock()
		if is(log) {
			return nil
		}
		select {
		case <-changed:
		case <-p.done:
			if is(p.text()) {
				return nil
			}
			return errors.New("it ended first:\n" + p.text())
		case <-ctx.Done():
			return errors.New("not within " + patience.String() + ":\n" + p.text())
		}
	}
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// wait waits for the end and returns the exit code.
func (p *process) wait() (int, error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		return 0, errors.New("did not end within " + patience.String() + ":\n" + p.text())
	}
}

// kill ends the process if it has not ended.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.done
}

// addresses returns the addresses in the log of a service.
func (p *process) addresses() (client, admin string, err error) {
	m, err := p.waitFor(`listening.*clients"?[=:]"?(http://[^" ]*).*operators"?[=:]"?(http://[^" ]*)`)
	if err != nil {
		return "", "", err
	}
	return m[1], m[2], nil
}

func signalOf(name string) (os.Signal, bool) {
	s, ok := map[string]os.Signal{
		"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL,
	}[strings.TrimPrefix(name, "SIG")]
	return s, ok
}
