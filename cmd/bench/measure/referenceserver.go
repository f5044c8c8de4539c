package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/discharger/discharger/cmd/bench/reference"
)

// referenceServer is a reference in a process of its own.
type referenceServer struct {
	*process
	stdin io.Closer
	hello reference.Hello
}

// startReference starts a reference as a subprocess of this program.
func startReference(ctx context.Context, self string, procs int, spec reference.Spec) (*referenceServer, error) {
	cmd := exec.Command(self, "reference")
	cmd.Env = environ(procs)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	go func() {
		_ = json.NewEncoder(stdin).Encode(spec) // a process that does not get it fails
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
