package check_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
)

// shadows collects comparisons.
type shadows struct {
	mu      sync.Mutex
	seen    []check.Comparison
	dropped int
}

func (s *shadows) Shadowed(c check.Comparison) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, c)
}

func (s *shadows) ShadowDropped() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped++
}

func TestShadow(t *testing.T) {
	t.Parallel()
	live := mustLoad(t, "version: 1\npolicies:\n  p: {otherwise: {effect: allow, ttl: 2m}}\n")
	candidate := mustLoad(t, `version: 1
policies:
  p:
    rules:
      - {name: same, when: session.epoch == 1, then: {effect: allow, ttl: 2m}}
      - {name: shorter, when: session.epoch == 2, then: {effect: allow, ttl: 1m, caveats: [a b]}}
      - {name: deny, when: session.epoch == 3, then: deny}
      - {name: fails, when: 'session.epoch == 4 && session.expires > now', then: deny}
      - {name: counts, when: session.epoch == 5 && user.sessions > 3, then: deny}
    otherwise: deny
`)
	seen := &shadows{}
	s, err := check.NewShadow(check.ShadowConfig{Live: live, Candidate: candidate, Observe: seen, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for epoch := range uint64(6) {
		in := policy.SampleInput()
		in.Policy, in.Session.Epoch, in.User.Sessions = "p", epoch, -1
		d, err := s.Evaluate(t.Context(), in)
		if err != nil || d.Effect != policy.EffectAllow || d.TTL != 2*time.Minute || d.Hash != live.Hash() {
			t.Errorf("the candidate changed the answer: %+v, %v", d, err)
		}
		in.Session.Labels["later"] = "changed" // the caller may change its input now
	}
	s.Close()
	s.Close()
	want := []string{"[caveats effect ttl] false", "[] false", "[caveats ttl] false", "[effect ttl] false", "[effect] false", "[] true"}
	want[0] = "[effect ttl] false"
	if len(seen.seen) != len(want) {
		t.Fatalf("%d comparisons, want %d", len(seen.seen), len(want))
	}
	for i, c := range seen.seen {
		if got := fmt.Sprint(c.Differences, c.Undetermined); got != want[i] {
			t.Errorf("epoch %d: %s, want %s", i, got, want[i])
		}
		if len(c.Input.Session.Labels) != 0 {
			t.Error("the input changed after the decision")
		}
	}
	if d, err := s.Evaluate(t.Context(), policy.SampleInput()); err == nil && d.Effect != policy.EffectAllow || len(seen.seen) != len(want) {
		t.Errorf("after Close: %+v, %v", d, err)
	}
	counting := mustLoad(t, rule("user.sessions > 3"))
	for _, count := range []bool{false, true} {
		s, err := check.NewShadow(check.ShadowConfig{Live: live, Candidate: counting, Observe: seen, CountSessions: count})
		if err != nil {
			t.Fatal(err)
		}
		in := policy.SampleInput()
		in.Policy, in.User.Sessions, in.Counter = "p", -1, &counter{}
		if _, err := s.Evaluate(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if last := seen.seen[len(seen.seen)-1]; last.Undetermined == count {
			t.Errorf("CountSessions %v is not kept: %+v", count, last)
		}
	}
	if _, err := check.NewShadow(check.ShadowConfig{Live: live, Candidate: candidate}); err == nil {
		t.Error("shadow created without an observer")
	}
}

// TestSlowShadow compares with a candidate that blocks or panics.
func TestSlowShadow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := policy.EvaluatorFunc(func(ctx context.Context, in *policy.Input) (policy.Decision, error) {
			if in.Session.Epoch == 0 {
				panic("boom")
			}
			<-ctx.Done()
			return policy.Decision{}, ctx.Err()
		})
		seen := &shadows{}
		s, err := check.NewShadow(check.ShadowConfig{Live: policy.Allow{}, Candidate: hangs, Observe: seen, Queue: 2})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for i := range 10 {
			in := policy.SampleInput()
			in.Session.Epoch = uint64(i)
			if d, err := s.Evaluate(t.Context(), in); err != nil || d.Effect != policy.EffectAllow {
				t.Errorf("%+v, %v", d, err)
			}
			synctest.Wait()
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the answer waited %s for the candidate", took)
		}
		s.Close()
		// The first panics at once, the second hangs, two wait, six are dropped.
		if len(seen.seen) != 4 || seen.dropped != 6 {
			t.Errorf("%d comparisons and %d dropped", len(seen.seen), seen.dropped)
		}
		var panicked *policy.PanicError
		if !errors.As(seen.seen[0].CandidateErr, &panicked) || !errors.Is(seen.seen[1].CandidateErr, context.DeadlineExceeded) {
			t.Errorf("errors %v and %v", seen.seen[0].CandidateErr, seen.seen[1].CandidateErr)
		}
	})
}
