// Package policy is the contract between the service and its policies. At every
// activation and every refresh of a session a policy decides how long the
// discharge lives, which caveats it carries, or that there is none.
//
// # Position
//
// The core evaluates a policy after its own checks. A refusal of the core stays
// one, and the discharge that the core would issue is described in
// [Input.Grant]: a [Decision] can shorten it, attach conditions to it, or
// withhold it, and can never widen it. [Ask] is the border: it narrows a
// decision to the grant. An [Evaluator] that returns an error, panics or runs
// out of time has decided nothing: the request is answered as unavailable, and
// the session stays as it is.
//
// # Implementations
//
// Package rules makes an Evaluator of rule files, whose conditions package cel
// compiles, and whose decisions package webhook may leave to another program.
// Package check examines, tests, records and compares policies. Programs that
// embed the service implement [Evaluator] themselves. [Allow] accepts the
// proposal of the core.
//
// # Versions
//
// Input and Decision are version 1 of a contract that is kept outside this
// process too: in rule files, in webhook bodies and in audit logs. Fields are
// added, never renamed; their JSON names are part of the contract. In JSON a
// time is RFC 3339, and a duration a string such as "5m0s".
package policy

import "context"

// An Evaluator decides about one request. Implementations are called
// concurrently and must not keep the Input, nor change it but through
// [Input.CountSessions].
//
// A returned error means "undecided": the request is answered as unavailable
// and nothing changes. The context carries the deadline of the request.
type Evaluator interface {
	Evaluate(ctx context.Context, in *Input) (Decision, error)
}

// EvaluatorFunc is a function that is an [Evaluator].
type EvaluatorFunc func(ctx context.Context, in *Input) (Decision, error)

// Evaluate calls f.
func (f EvaluatorFunc) Evaluate(ctx context.Context, in *Input) (Decision, error) {
	return f(ctx, in)
}

// Allow is the policy that accepts the proposal of the core.
type Allow struct{}

// Evaluate returns [EffectAllow].
func (Allow) Evaluate(context.Context, *Input) (Decision, error) {
	return Decision{Effect: EffectAllow, Rule: DefaultName}, nil
}
