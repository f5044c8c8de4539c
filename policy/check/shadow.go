package check

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/webhook"
)

// ShadowConfig configures a [Shadow].
type ShadowConfig struct {
	Live      policy.Evaluator // answers
	Candidate policy.Evaluator // never answers

	// Queue is the number of requests that may wait for the candidate; 0 means 256.
	// Further requests are reported as dropped.
	Queue int

	// Timeout bounds one evaluation of the candidate; 0 means a second.
	Timeout time.Duration

	// CountSessions counts the user's sessions at every request, for a candidate that
	// reads them while the live evaluator does not. It makes every request slower.
	CountSessions bool

	// Observe receives the result of each comparison.
	Observe ShadowObserver
}

// A ShadowObserver receives comparisons. Its methods are called
// concurrently and return at once.
type ShadowObserver interface {
	// Shadowed receives one comparison.
	Shadowed(c Comparison)

	// ShadowDropped is called for a request without a comparison, because the
	// candidate is too slow.
	ShadowDropped()
}

// A Shadow is an evaluator that answers with a live evaluator, evaluates a candidate
// afterwards, and reports the differences. The answer waits for a copy of the input only.
// The candidate's webhooks are called with the header Discharger-Shadow: 1.
type Shadow struct {
	cfg   ShadowConfig
	jobs  chan Comparison // without a candidate
	done  chan struct{}
	mu    sync.RWMutex
	ended bool
}

// A Comparison is the decision of the live evaluator beside that of the candidate.
type Comparison struct {
	Input        *policy.Input
	Live         policy.Decision
	LiveErr      error
	Candidate    policy.Decision
	CandidateErr error

	// Differences are the parts that differ, see [policy.Decision.Parts]. An
	// undecided request differs from a decided one in the effect.
	Differences []string

	// Undetermined is set if the candidate reads user.sessions and the number is unknown.
	Undetermined bool
}

// NewShadow starts a shadow. The caller closes it.
func NewShadow(cfg ShadowConfig) (*Shadow, error) {
	if cfg.Live == nil || cfg.Candidate == nil || cfg.Observe == nil {
		return nil, errors.New("shadow: Live, Candidate and Observe are required")
	}
	if cfg.Queue <= 0 {
		cfg.Queue = 256
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = time.Second
	}
	s := &Shadow{cfg: cfg, jobs: make(chan Comparison, cfg.Queue), done: make(chan struct{})}
	go s.work()
	return s, nil
}

// Close waits for the queued comparisons and ends comparing. Evaluate goes on.
func (s *Shadow) Close() {
	s.mu.Lock()
	if !s.ended {
		s.ended = true
		close(s.jobs)
	}
	s.mu.Unlock()
	<-s.done
}

// Evaluate returns the decision of the live evaluator.
func (s *Shadow) Evaluate(ctx context.Context, in *policy.Input) (policy.Decision, error) {
	if s.cfg.CountSessions {
		_, _ = in.CountSessions(ctx) // after an error they are unknown to the candidate
	}
	d, err := s.cfg.Live.Evaluate(ctx, in)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ended {
		return d, err
	}
	if len(s.jobs) == cap(s.jobs) { // without a copy of the input
		s.cfg.Observe.ShadowDropped()
		return d, err
	}
	select {
	case s.jobs <- Comparison{Input: cloneInput(in), Live: d.Clone(), LiveErr: err}:
	default:
		s.cfg.Observe.ShadowDropped()
	}
	return d, err
}

func cloneInput(in *policy.Input) *policy.Input {
	c := *in
	c.Counter = nil // the request may have ended
	c.Session.Labels = maps.Clone(in.Session.Labels)
	return &c
}

func (s *Shadow) work() {
	defer close(s.done)
	for job := range s.jobs {
		s.cfg.Observe.Shadowed(s.compare(job))
	}
}

func (s *Shadow) compare(c Comparison) Comparison {
	ctx, cancel := context.WithTimeout(webhook.WithShadow(context.Background()), s.cfg.Timeout)
	defer cancel()
	c.Candidate, c.CandidateErr = policy.Ask(ctx, s.cfg.Candidate, c.Input)
	candidate := verdictOf(c.Candidate, c.CandidateErr)
	if candidate.undetermined != "" {
		c.Undetermined = true
		return c
	}
	live := verdict{Decision: c.Live, undecided: c.LiveErr != nil}
	if c.CandidateErr == nil && c.LiveErr == nil {
		if narrowed, err := c.Live.Narrow(c.Input.Grant); err == nil {
			live.Decision = narrowed
		}
	}
	c.Differences = live.differences(candidate)
	return c
}
