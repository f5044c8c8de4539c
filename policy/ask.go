package policy

import (
	"context"
	"fmt"
	"runtime/debug"
)

// Ask evaluates a policy and narrows its decision to in.Grant. It is the
// border between policies and the service: the service trusts decisions of Ask
// only. A panic of the evaluator is returned as a [PanicError].
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
	Value any    // argument of panic
	Stack []byte // as [debug.Stack] returns it
}

// Error returns the value of the panic, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("policy panicked: %v", e.Value) }
