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

// ShadowConfig has the evaluators to compare.
type ShadowConfig struct {
	Live      policy.Evaluator // answers
	Candidate policy.Evaluator // is compared, and never answers

	// Queue is how many requests may wait for the candidate; 0 means 256.
	// Further requests are dropped, and reported as such.
	Queue int

	// Timeout bounds one evaluation of the candidate; 0 means a second.
	Timeout time.Duration

	// CountSessions counts the user's sessions at every request, for a
	// candidate that reads them where the live evaluator does not. It makes
	// all requests slower.
	CountSessions bool

	// Observe receives the outcome of each comparison. It is required:
	// comparing without looking is of no use.
	Observe ShadowObserver
}

// A ShadowObserver is notified of comparisons. Its methods are called
// concurrently and return at once.
type ShadowObserver interface {
	// Shadowed reports the decision of the candidate beside the live one.
	Shadowed(c Comparison)

	// ShadowDropped reports a request that was not compared, because the
	// candidate is too slow.
	ShadowDropped()
}

// A Shadow evaluates a candidate for every request that a live evaluator decides,
// after the live one has answered, and reports where they differ. The answer
// waits for nothing but a copy of the input. The candidate's webhooks are
// called too, with the header Discharger-Shadow: 1.
type Shadow struct {
	cfg   ShadowConfig
	jobs  chan shadowJob
	done  chan struct{}
	mu    sync.RWMutex
	ended bool
}

type shadowJob struct {
	in   *policy.Input
	live verdict
	err  error
}

// A Comparison is a live decision beside a candidate's.
type Comparison struct {
	Input        *policy.Input
	Live         policy.Decision
	LiveErr      error
	Candidate    policy.Decision
	CandidateErr error

	// Differences are the parts that differ: effect, ttl and so on. An
	// undecided request differs from a decided one in its effect.
	Differences []string

	// Undetermined is set when the candidate could not be compared, because
	// the number of sessions was not counted for it.
	Undetermined bool
}

// NewShadow starts comparing. Close ends it.
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
	s := &Shadow{cfg: cfg, jobs: make(chan shadowJob, cfg.Queue), done: make(chan struct{})}
	go s.work()
	return s, nil
}

// Close waits for the comparisons under way and stops. The live evaluator goes
// on answering.
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
		_, _ = in.CountSessions(ctx) // if that fails, they stay unknown to the candidate
	}
	d, err := s.cfg.Live.Evaluate(ctx, in)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ended || len(s.jobs) == cap(s.jobs) {
		if !s.ended {
			s.cfg.Observe.ShadowDropped()
		}
		return d, err
	}
	select {
	case s.jobs <- shadowJob{cloneInput(in), verdict{Decision: d.Clone(), undecided: err != nil}, err}:
	default:
		s.cfg.Observe.ShadowDropped()
	}
	return d, err
}

func cloneInput(in *policy.Input) *policy.Input {
	c := *in
	c.Counter = nil // the request is over when the candidate reads it
	c.Session.Labels = maps.Clone(in.Session.Labels)
	return &c
}

func (s *Shadow) work() {
	defer close(s.done)
	for job := range s.jobs {
		s.cfg.Observe.Shadowed(s.compare(job))
	}
}

func (s *Shadow) compare(job shadowJob) (c Comparison) {
	ctx, cancel := context.WithTimeout(webhook.WithShadow(context.Background()), s.cfg.Timeout)
	defer cancel()
	c = Comparison{Input: job.in, Live: job.live.Decision, LiveErr: job.err}
	c.Candidate, c.CandidateErr = policy.Ask(ctx, s.cfg.Candidate, job.in)
	v := verdictOf(c.Candidate, c.CandidateErr)
	if v.undetermined != "" {
		c.Undetermined = true
		return c
	}
	if c.CandidateErr == nil && job.err == nil {
		if narrowed, err := job.live.Narrow(job.in.Grant); err == nil {
			job.live.Decision = narrowed
		}
	}
	c.Differences = job.live.differences(v)
	return c
}
