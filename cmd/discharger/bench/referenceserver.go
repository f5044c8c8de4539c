package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/discharger/discharger/cmd/discharger/bench/reference"
)

// referenceServer is a reference in a process of its own.
type referenceServer struct {
	*process
	stdin io.Closer
	hello reference.Hello
}

func startReference(ctx context.Context, program []string, procs int, spec reference.Spec) (*referenceServer, error) {
	return startOther(ctx, append(program[:len(program):len(program)], "bench", "reference"), procs, spec)
}

// startOther starts a reference that is a program with arguments of its own.
func startOther(ctx context.Context, command []string, procs int, spec reference.Spec) (*referenceServer, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = environ(procs)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_ = json.NewEncoder(stdin).Encode(spec) // whoever does not get it says so
	}()
	r := &referenceServer{stdin: stdin}
	r.process, err = startProcess(ctx, cmd, true, func(line string) bool {
		return json.Unmarshal([]byte(line), &r.hello) == nil && r.hello.Addr != ""
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reference %s: %w", spec.Kind, err), stdin.Close())
	}
	return r, nil
}

// stop ends the reference.
func (r *referenceServer) stop() error {
	err := r.stdin.Close()
	select {
	case <-r.done:
		return errors.Join(err, r.err)
	case <-time.After(slow):
		return errors.Join(err, r.kill())
	}
}
