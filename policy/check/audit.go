package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/discharger/discharger/policy"
)

// An AuditRecord is one line of an audit log: an input and its
// decision. It contains no tokens, keys or caveats of the client, but addresses
// and user names; the log is readable by its owner only.
type AuditRecord struct {
	Version  int              `json:"version"` // 1
	Time     time.Time        `json:"time"`
	Input    *policy.Input    `json:"input,omitempty"`
	Decision *policy.Decision `json:"decision,omitempty"` // nil: undecided
	Error    string           `json:"error,omitempty"`    // of an undecided request
	Dropped  int              `json:"dropped,omitempty"`  // number of records lost before this line; the other fields are empty
}

// AuditConfig configures an [Audit].
type AuditConfig struct {
	// Path is the file. It is created with mode 0600 and appended to.
	Path string

	// Buffer is the number of records that may wait for the disk; 0 means 1024. Further
	// records are dropped, and the log contains their number.
	Buffer int

	// Failed is called with the cause when records are lost, unless it is nil.
	Failed func(err error)
}

// An Audit is an audit log: a file with one JSON object per line, which [Diff]
// reads. It never delays or changes a decision.
type Audit struct {
	cfg     AuditConfig
	lines   chan []byte
	done    chan struct{}
	mu      sync.Mutex // guards dropped and closed, and sending to lines
	dropped int
	closed  bool
	fileMu  sync.Mutex // held while writing
	file    *os.File
}

// NewAudit opens an audit log. The caller closes it.
func NewAudit(cfg AuditConfig) (*Audit, error) {
	if cfg.Path == "" {
		return nil, errors.New("audit log: path is empty")
	}
	if cfg.Buffer <= 0 {
		cfg.Buffer = 1024
	}
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	a := &Audit{cfg: cfg, lines: make(chan []byte, cfg.Buffer), done: make(chan struct{})}
	if err := a.Reopen(); err != nil {
		return nil, err
	}
	go a.write()
	return a, nil
}

// Reopen opens the path again after the file was renamed. If that
// fails, the old file stays in use.
func (a *Audit) Reopen() error {
	f, err := os.OpenFile(a.cfg.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	a.fileMu.Lock()
	old := a.file
	a.file = f
	a.fileMu.Unlock()
	if old != nil {
		if err := old.Close(); err != nil {
			return fmt.Errorf("close old audit log: %w", err)
		}
	}
	return nil
}

// Close writes the waiting records and closes the file. Later records are dropped.
func (a *Audit) Close() error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.closed = true
	close(a.lines)
	a.mu.Unlock()
	<-a.done
	a.fileMu.Lock()
	defer a.fileMu.Unlock()
	if err := a.file.Close(); err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}

// Evaluator returns an evaluator that records the narrowed decisions of next.
func (a *Audit) Evaluator(next policy.Evaluator) policy.Evaluator {
	return policy.EvaluatorFunc(func(ctx context.Context, in *policy.Input) (policy.Decision, error) {
		d, err := policy.Ask(ctx, next, in)
		a.Record(in, d, err)
		return d, err
	})
}

// Record adds a decision to the log, or the error of an undecided request.
func (a *Audit) Record(in *policy.Input, d policy.Decision, err error) {
	r := AuditRecord{Version: 1, Time: time.Now().UTC(), Input: in}
	if err != nil {
		r.Error = fmt.Sprintf("%.500s", err.Error())
	} else {
		r.Decision = &d
	}
	line, marshalErr := json.Marshal(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case marshalErr != nil:
		a.drop(marshalErr)
		return
	case a.closed:
		a.drop(os.ErrClosed)
		return
	case a.dropped > 0:
		line = fmt.Appendf(nil, `{"version":1,"time":%q,"dropped":%d}`+"\n%s", r.Time.Format(time.RFC3339Nano), a.dropped, line)
	}
	select {
	case a.lines <- append(line, '\n'):
		a.dropped = 0
	default:
		a.drop(errors.New("audit log is too slow"))
	}
}

func (a *Audit) drop(err error) {
	a.dropped++
	a.cfg.Failed(err)
}

// maxBatch bounds the bytes of a write, except for a longer line.
const maxBatch = 256 << 10

// write writes the waiting lines together.
func (a *Audit) write() {
	defer close(a.done)
	for line := range a.lines {
		batch := bytes.NewBuffer(line)
		n := 1
	collect:
		for batch.Len() < maxBatch {
			select {
			case more, ok := <-a.lines:
				if !ok {
					break collect
				}
				batch.Write(more)
				n++
			default:
				break collect
			}
		}
		a.fileMu.Lock()
		_, err := a.file.Write(batch.Bytes())
		a.fileMu.Unlock()
		if err != nil {
			a.mu.Lock()
			a.dropped += n
			a.mu.Unlock()
			a.cfg.Failed(fmt.Errorf("write audit log: %w", err))
		}
	}
}
