package policy

import (
	"context"
	"fmt"
	"runtime/debug"
)

// Ask evaluates a policy, and narrows its decision to the grant. This is the
// border between a policy and the service: every decision passes it once, and
// is trusted afterwards. A panic of the evaluator is a [PanicError].
func Ask(ctx context.Context, e Evaluator, in *Input) (d Decision, err error) {
	defer func() {
		if r := recover(); r != nil {
			d, err = Decision{}, &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	if d, err = e.Evaluate(ctx, in); err != nil {
		return Decision{}, err
	}
	rule := d.Rule
	if d, err = d.Narrow(in.Grant); err != nil {
		return Decision{}, fmt.Errorf("rule %s: %w", rule, err)
	}
	return d, nil
}

// PanicError is the error of an evaluation that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("policy panicked: %v", e.Value) }
