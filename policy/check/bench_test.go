package check_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/check"
)

// BenchmarkOverhead measures the cost of audit and shadow for a request.
func BenchmarkOverhead(b *testing.B) {
	in := policy.SampleInput()
	ctx := context.Background()
	run := func(b *testing.B, e policy.Evaluator) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := e.Evaluate(ctx, in); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("none", func(b *testing.B) { run(b, policy.Allow{}) })
	b.Run("audit", func(b *testing.B) {
		a, err := check.NewAudit(check.AuditConfig{Path: filepath.Join(b.TempDir(), "audit")})
		if err != nil {
			b.Fatal(err)
		}
		run(b, a.Evaluator(policy.Allow{}))
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("shadow", func(b *testing.B) {
		s, err := check.NewShadow(check.ShadowConfig{Live: policy.Allow{}, Candidate: policy.Allow{}, Observe: new(shadows)})
		if err != nil {
			b.Fatal(err)
		}
		run(b, s)
		s.Close()
	})
}
