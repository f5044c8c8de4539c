// Package policy decides, at every activation and every refresh, what a
// session may have: how long its discharge lives, which caveats it carries,
// or that it gets none.
//
// # Where a policy stands
//
// The core asks it after its own checks. Whatever the core has already
// refused stays refused, and what the core would grant is written in
// [Input.Grant]: a [Decision] can shorten it, attach conditions to it, or
// withhold it, and can never widen it. An [Evaluator] that returns an error,
// panics or runs out of time has decided nothing: the client is told to come
// back later, and neither gets a discharge nor loses its session.
//
// # Three ways to write one
//
// Operators write rules in YAML files, which [Load] turns into a [Set] and a
// [Reloader] keeps up to date. A rule may leave its decision to a webhook.
// Programs that embed the service implement [Evaluator], an interface of one
// method. [Allow] accepts what the core proposes, and some policies are built
// in, as rule files to copy: see [Builtin].
//
// # Rule files
//
// A file has any number of policies; a homeserver's configuration or a
// session's condition names the one that applies. A policy is a list of rules,
// each with a condition in CEL, the expression language that Kubernetes uses.
// The first rule whose condition holds decides, and otherwise decides where
// none does:
//
//	version: 1
//	networks:
//	  office: [203.0.113.0/24, "2001:db8:7::/48"]
//	policies:
//	  default:
//	    rules:
//	      - name: admins-at-the-office
//	        when: session.labels[?"role"].orValue("") == "admin" && !(request.ip in networks.office)
//	        then: {effect: deny, code: admin_network}
//	    otherwise: {effect: allow, ttl: 5m}
//	    tests:
//	      - name: an admin elsewhere
//	        input: {session: {labels: {role: admin}}}
//	        expect: deny
//
// Expressions see the fields of [Input] under their JSON names ([WriteFields]
// lists them), and the file's own lists. Beside the functions of CEL, its
// optional values, strings and network functions as Kubernetes has them, there
// are
//
//	addr in networks.office              and in cidr("10.0.0.0/8"), cidrs("10.0.0.0/8 192.0.2.7")
//	sameNetwork(addr, addr, 24, 48)      same first 24 bits of IPv4, or 48 of IPv6
//	now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")
//	days(90)                             a duration of 90 times 24 hours
//
// Everything is checked when a file is loaded: the types of expressions, names
// and values that do not exist, rules that never run, what a decision costs at
// most, the caveats that homeservers know, and the file's own tests. [Check]
// lists all of it with places and suggestions.
//
// # What can go wrong
//
// Reading a field that has no value (an unknown address, a missing label) is
// an error and not a default, because either default would be the wrong one
// for some rule. So is a value that would not stay one word of the caveat it
// is filled into, a decision that costs more than it may, a webhook that does
// not answer, and a panic. All of them leave the request undecided.
//
// # Versions
//
// Input and Decision are version 1 of a contract that is kept outside this
// process too: in rule files, in webhook bodies and in audit logs. Fields are
// added, never renamed; their JSON names are part of the contract. In JSON a
// time is RFC 3339, and a duration a string such as "5m0s". [JSONSchema]
// describes all of it.
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

// Allow is the built-in policy: every session that the core finds in order
// gets the discharge the core proposes.
type Allow struct{}

// Evaluate returns [EffectAllow].
func (Allow) Evaluate(context.Context, *Input) (Decision, error) {
	return Decision{Effect: EffectAllow, Rule: DefaultName}, nil
}
