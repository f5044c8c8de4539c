package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/cmd/bench/reference"
)

// Reference is a reference in a process of its own.
type Reference struct {
	*process
	stdin io.Closer
	Hello reference.Hello
}

// StartReference starts a reference as a subprocess of this program.
func StartReference(ctx context.Context, self string, procs int, spec reference.Spec) (*Reference, error) {
	cmd := exec.Command(self, "reference")
	cmd.Env = environ(procs)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_ = json.NewEncoder(stdin).Encode(spec) // a process that does not get it fails
	}()
	r := &Reference{stdin: stdin}
	r.process, err = startProcess(ctx, cmd, true, func(line string) bool {
		return json.Unmarshal([]byte(line), &r.Hello) == nil && r.Hello.Addr != ""
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reference %s: %w", spec.Kind, err), stdin.Close())
	}
	return r, nil
}

// Stop ends the reference.
func (r *Reference) Stop() error {
	err := r.stdin.Close()
	select {
	case <-r.done:
		return errors.Join(err, r.err)
	case <-time.After(load.Timeout):
		return errors.Join(err, r.Kill())
	}
}
