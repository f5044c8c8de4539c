package webhook

import (
	"context"

	"github.com/discharger/discharger/policy"
)

// An Answer is the answer of a webhook.
type Answer struct {
	Decision policy.Decision
	Settled  bool // false: no opinion
}

// A Stub is what a webhook answers in a test.
type Stub struct {
	Answer
	Err error
}

type stubsKey struct{}

// WithStubs makes webhooks answer from stubs, by name. No webhook is asked: one
// without a stub fails with [ErrOffline].
func WithStubs(ctx context.Context, stubs map[string]Stub) context.Context {
	return context.WithValue(ctx, stubsKey{}, stubs)
}

// stubbed returns the stub of a webhook, if stubs are in use.
func stubbed(ctx context.Context, w *Webhook) (stub Stub, ok bool) {
	stubs, ok := ctx.Value(stubsKey{}).(map[string]Stub)
	if !ok {
		return Stub{}, false
	}
	stub, given := stubs[w.cfg.Name]
	if !given {
		return Stub{Err: ErrOffline}, true
	}
	return stub, true
}

type shadowKey struct{}

// WithShadow marks the questions as those of a candidate that is only compared.
func WithShadow(ctx context.Context) context.Context {
	return context.WithValue(ctx, shadowKey{}, true)
}

func isShadow(ctx context.Context) bool { return ctx.Value(shadowKey{}) != nil }
