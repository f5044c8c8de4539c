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
// decision. It has no token, key or caveat of the client in it; it does have
// addresses and user names, so the log is only readable by its owner.
type AuditRecord struct {
	Version  int              `json:"version"` // 1
	Time     time.Time        `json:"time"`
	Input    *policy.Input    `json:"input,omitempty"`
	Decision *policy.Decision `json:"decision,omitempty"` // of a request that was decided
	Error    string           `json:"error,omitempty"`    // of one that was not
	Dropped  int              `json:"dropped,omitempty"`  // records that are missing here; nothing else is set
}

// AuditConfig describes an audit log.
type AuditConfig struct {
	// Path is the file; it is made with mode 0600, and appended to.
	Path string

	// Buffer is how many records may wait to be written; 0 means 1024. When
	// they are more, because the disk is slow, records are dropped, and the
	// log contains their number.
	Buffer int

	// Failed is called with the cause whenever records are lost, if it is not
	// nil.
	Failed func(err error)
}

// An Audit writes decisions to a file, one JSON object a line, which [Diff]
// reads. It never holds up or changes a decision.
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

// NewAudit opens the log. Close ends it.
func NewAudit(cfg AuditConfig) (*Audit, error) {
	if cfg.Path == "" {
		return nil, errors.New("audit log: no path")
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

// Reopen opens the path anew, for a program that has renamed the file. If that
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

// Close writes the waiting records and closes the file. Records that come later
// are dropped.
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

// Evaluator returns next with every decision of it recorded.
func (a *Audit) Evaluator(next policy.Evaluator) policy.Evaluator {
	return &audited{next, a}
}

type audited struct {
	next  policy.Evaluator
	audit *Audit
}

func (e *audited) Evaluate(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	d, err := policy.Ask(ctx, e.next, in)
	e.audit.Record(in, d, err)
	return d, err
}

// Record adds a decision to the log, or the error that was in its place.
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
		a.drop(errors.New("the audit log is too slow"))
	}
}

func (a *Audit) drop(err error) {
	a.dropped++
	a.cfg.Failed(err)
}

// maxBatch is how much is written at once, unless one line is longer.
const maxBatch = 256 << 10

// write writes lines, as many at once as are waiting.
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
