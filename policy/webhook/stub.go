package webhook

import (
	"context"

	"github.com/discharger/discharger/policy"
)

// An Answer is the response of a webhook.
type Answer struct {
	Decision policy.Decision
	Settled  bool // false: no opinion
}

// A Stub replaces the response of a webhook in a test: an answer, or an error.
type Stub struct {
	Answer
	Err error
}

type stubsKey struct{}

// WithStubs returns a context in which webhooks answer from stubs, by name, without a
// call. A webhook without a stub fails with [ErrOffline].
func WithStubs(ctx context.Context, stubs map[string]Stub) context.Context {
	return context.WithValue(ctx, stubsKey{}, stubs)
}

// stubbed returns the stub of a webhook if the context has stubs.
func stubbed(ctx context.Context, w *Webhook) (stub Stub, ok bool) {
	stubs, ok := ctx.Value(stubsKey{}).(map[string]Stub)
	if stub, given := stubs[w.cfg.Name]; given {
		return stub, true
	}
	return Stub{Err: ErrOffline}, ok
}

type shadowKey struct{}

// WithShadow returns a context in which calls carry the header Discharger-Shadow.
func WithShadow(ctx context.Context) context.Context {
	return context.WithValue(ctx, shadowKey{}, true)
}
