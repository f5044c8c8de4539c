// Package policy is the contract between the service and its policies. A policy decides, at
// every activation and every refresh of a session, on the lifetime and the caveats of the
// discharge, or refuses it.
//
// # Position
//
// The core evaluates a policy after its own checks. A refusal of the core stays a
// refusal. [Input.Grant] describes the discharge that the core would issue: a [Decision]
// can shorten it, attach caveats to it, or withhold it, and never widens it. [Ask] is the
// border: it narrows a decision to the grant. If an [Evaluator] returns an error, panics
// or exceeds the deadline, the request is undecided: the client receives 503, and the
// session is unchanged.
//
// # Implementations
//
// Package rules implements Evaluator with rule files. Package cel compiles their conditions,
// and package webhook calls external programs for decisions.
// Package check reports on rule files, runs their tests, and records and compares decisions.
// Programs that embed the service may implement [Evaluator]. [Allow] accepts the
// proposal of the core.
//
// # Versions
//
// Input and Decision are version 1 of a contract that rule files, webhook requests and audit
// logs share. Fields may be
// added and are never renamed; their JSON names are part of the contract. In JSON a
// time is in RFC 3339, and a duration is a string such as "5m0s".
package policy

import "context"

// An Evaluator decides about requests. Implementations are called concurrently and must
// not retain the Input, nor change it except through [Input.CountSessions].
//
// An error leaves the request undecided: the client receives 503 and
// nothing changes. The context carries the deadline of the request.
type Evaluator interface {
	Evaluate(ctx context.Context, in *Input) (Decision, error)
}

// EvaluatorFunc adapts a function to [Evaluator].
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
